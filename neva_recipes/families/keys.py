"""The keys of a config.json by their effect here: read, fixed to one value, or irrelevant. Others are not understood.

transformers silently drops a key that its class does not know, and computes as if it were not there. This package
reports such a key, because the weights may need what it says.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from neva_recipes.config import PlainTable
from neva_recipes.families.values import OBJECT, WORD, WORDS, Kind, bare, shown

__all__ = ["CAUSAL", "ONE_WAY", "Keys", "Read", "problems_of", "read_values"]

_PROVENANCE = {
    *("architectures", "model_type", "transformers_version", "transformers.js_config", "name_or_path", "license"),
    *("torch_dtype", "dtype", "unsloth_version", "unsloth_fixed", "finetuning_task", "base_model"),
    *(
        "language",
        "tags",
        "datasets",
        "library_name",
        "pipeline_tag",
        "model_name",
        "model_file",
        "max_sequence_length",
    ),
}
"""Where a directory comes from and how it was stored; the precision is that of the tensors."""

_RUNNING = {
    *("use_cache", "return_dict", "output_hidden_states", "output_attentions", "output_scores", "torchscript"),
    *("return_dict_in_generate", "chunk_size_feed_forward", "attn_implementation", "use_flash_attn", "use_sdpa"),
    *("use_flash_attention", "use_flash_attention_2", "flash_attn", "gradient_checkpointing", "use_bfloat16"),
    *("tf_legacy_loss", "pretraining_tp", "is_decoder", "use_return_dict", "use_mem_efficient_attention"),
}
"""How to compute the same result."""

_TRAINING = {
    *(
        "initializer_range",
        "initializer_factor",
        "attention_dropout",
        "dropout",
        "hidden_dropout",
        "hidden_dropout_prob",
    ),
    *("attention_probs_dropout_prob", "attn_pdrop", "resid_pdrop", "embd_pdrop", "classifier_dropout", "ignore_index"),
    *("problem_type", "task_specific_params", "id2label", "label2id", "num_labels", "logit_scale_init_value"),
    *("gradient_checkpointing_kwargs", "mlp_dropout", "drop_path_rate", "label_smoothing", "hidden_dropout_prob"),
}
"""Settings that only matter for training; the recipe has its own dropout."""

_GENERATION = {
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "forced_bos_token_id", "prefix"),
    *("forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens"),
    *("begin_suppress_tokens", "max_new_tokens", "min_new_tokens", "decoder_start_token_id"),
}
"""How old versions of transformers generated answers; today generation_config.json holds these settings."""

_TOKENS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "tokenizer_class"),
    *("tokenizer_model_max_length", "tokenizer_padding_side", "model_max_length", "pad_token"),
}
"""Settings of the tokenizer."""

_QUANTIZED = {"quantization_config", "compression_config"}
"""How the weights are quantized; any such setting is refused."""

_IDLE = frozenset({*_QUANTIZED, *_PROVENANCE, *_RUNNING, *_TRAINING, *_GENERATION, *_TOKENS})

ONE_WAY = {"is_encoder_decoder": False, "add_cross_attention": False}
"""What every model that is no encoder-decoder says of itself, if it says it."""

CAUSAL = {"is_causal": True}
"""What every decoder-only language model says of itself, if it says it; transformers takes null for false."""


class Read(NamedTuple):
    """A key that is read.

    Attributes:
        kind: The kind of its value.
        default: The value in transformers' class if the key is absent; if it is `None`, null is allowed too.
    """

    kind: Kind
    default: Any = None


_EVERYWHERE = {"architectures": Read(WORDS), "model_type": Read(WORD), "auto_map": Read(OBJECT)}


@dataclass(frozen=True)
class Keys:
    """The keys of one kind of configuration.

    Attributes:
        read: Keys that are compared with the recipe.
        fixed: Keys that change what is computed, with the only value that is supported.
        fixed_or_null: The same of keys for which null says nothing else: transformers' class has none of this name, or
            takes null for false.
        each: Keys of lists with an entry for each layer, with the only entry that is supported.
        idle: Keys that change nothing here, besides those of every configuration.
        architectures: Classes that save such a configuration.
        has_own_code: Whether published directories carry the code of such a class (auto_map). It is never run, and
            what it computes is what the family declares.
    """

    read: Mapping[str, Read]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    fixed_or_null: Mapping[str, Any] = field(default_factory=dict)
    each: Mapping[str, str] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()
    architectures: tuple[str, ...] = ()
    has_own_code: bool = False


def read_values(fields: Mapping[str, object], keys: Keys, place: str = "") -> PlainTable:
    """Return the values of the keys that are read; an absent key has the default of transformers' class.

    Args:
        fields: The configuration.
        keys: The known keys of its kind.
        place: Prefix of its keys in messages: the name of its group and a dot.

    Raises:
        ValueError: A value has the wrong type or is out of range; the message names it.
    """
    values = {}
    for key, read in {**_EVERYWHERE, **keys.read}.items():
        value = fields.get(key, read.default)
        if not read.kind.accepts(value) and not (value is None and read.default is None):
            raise ValueError(f"{place}{key} is {shown(value)}, expected {read.kind.expected}")
        values[key] = value
    return values


def problems_of(fields: Mapping[str, Any], keys: Keys, place: str = "") -> Iterator[str]:
    """Yield what is not supported in a configuration, each with the name of its key.

    An unknown key with an empty value (none, false, an empty list) only says that something is absent.

    Args:
        fields: The configuration, which `read_values` has accepted.
        keys: The known keys of its kind.
        place: Prefix of its keys in messages: the name of its group and a dot.
    """
    for key in sorted(_QUANTIZED, reverse=True):
        if fields.get(key):
            method = fields[key].get("quant_method") if isinstance(fields[key], dict) else None
            what = f" ({bare(method)})" if method else ""
            yield f"{place}{key}{what}: the weights are quantized, which is not supported: save them dequantized"
    if (empty := fields.get("quantization_config")) is not None and not empty:
        yield f"{place}quantization_config is {shown(empty)}, which names no method: remove it from config.json"
    for architecture in fields.get("architectures") or []:
        if keys.architectures and architecture not in keys.architectures:
            yield f"{place}architectures is {bare(architecture)}, expected {keys.architectures[0]}"
    for name, code in (fields.get("auto_map") or {}).items():
        is_known = keys.has_own_code and str(code).rpartition(".")[2] in keys.architectures
        if name.startswith("AutoModel") and not is_known:
            yield f"{place}auto_map has {bare(name)}: the model is code of its own, which is not run"
    fixed = {**keys.fixed, **keys.fixed_or_null}
    for key, value in fields.items():
        if key in fixed:
            if value != fixed[key] and not (value is None and key in keys.fixed_or_null):
                yield f"{place}{key} is {bare(value)}, only {fixed[key]} is supported"
        elif key in keys.each:
            yield from _problems_of_list(fields, keys, key, place)
        elif key in keys.read or key in _EVERYWHERE or key.startswith("_"):
            continue
        elif key not in keys.idle and key not in _IDLE and value not in (None, False, [], {}, ""):
            yield (
                f"{place}{bare(key)} is {bare(value)}, which is not understood and may change what the model "
                "computes: remove it from config.json if it does not"
            )


def _problems_of_list(fields: Mapping[str, Any], keys: Keys, key: str, place: str) -> Iterator[str]:
    """Yield what is wrong with a list with an entry for each layer; null says nothing."""
    value, only = fields[key], keys.each[key]
    count = keys.read.get("num_hidden_layers")  # the family of a package may call it otherwise
    layers = None if count is None else fields.get("num_hidden_layers", count.default)
    if value is None:
        return
    if not isinstance(value, list):
        yield f"{place}{key} is {bare(value)}, expected a list with {only} for each layer"
    elif other := [one for one in value if one != only]:
        yield f"{place}{key} has {bare(other[0])}, only {only} is supported"
    elif type(layers) is int and len(value) != layers:
        yield f"{place}{key} has a length of {len(value)}, expected one entry for each of {layers} layers"
