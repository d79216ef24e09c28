"""Keys of the `model` section on the language model: its shape, its weights, its tokenizer."""

from pathlib import Path

from neva_recipes.nemo._trainer_keys import NO_NEMO_MODEL
from neva_recipes.nemo.rules import (
    Configuration,
    Outcome,
    Rule,
    boolean,
    cannot,
    carried,
    carries,
    decides,
    harmless,
    holds,
    integer,
    leaves,
    left,
    number,
    same,
    text,
)
from neva_recipes.plan.huggingface import is_hub_name

__all__ = ["LANGUAGE_RULES", "weights"]

_VOCABULARIES = {
    **dict.fromkeys(("llama_2", "v1", "mistral"), 32000),
    **dict.fromkeys(("llama_3", "vita"), 128256),
    "nvgpt": 256000,
    "yi_34b": 64000,
}
"""Vocabulary sizes of the tokenizers for NeMo's model types."""

_NO_NEMO_WEIGHTS = (
    "NeMo's checkpoints are not read: make a Hugging Face directory with its converters (docs/nemo.md) and set {path}"
)


def weights(value: object, path: str) -> Outcome:
    """Return the outcome of a key that names weights: hub names and Hugging Face directories are carried."""
    if not value:
        return same(f"none: random weights until {path} names some")
    name = text(value)
    is_on_hub = is_hub_name(name) and not name.endswith((".nemo", ".ckpt"))
    if is_on_hub or _is_hugging_face(name):
        return carried({path: name})
    return cannot(_NO_NEMO_WEIGHTS.format(path=path))


def _is_hugging_face(name: str) -> bool:
    try:
        return (Path(name).expanduser() / "config.json").is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def _from_pretrained(value: object, _: Configuration) -> Outcome:
    return weights(value, "model.language.from_pretrained")


def _model_type(value: object, nemo: Configuration) -> Outcome:
    tokens = _VOCABULARIES.get(value if isinstance(value, str) else "nvgpt", 32000)
    why = f"that of the tokenizers of {value}: make it that of data.tokenizer"
    if nemo.says("model.mm_cfg.use_im_start_end") and value != "nvgpt":
        tokens, why = tokens + 2, f"{why}; two of them for image start and end"
    return same("the prompts are those of model.data.conv_template", {"model.language.vocab_size": (tokens, why)})


def _groups(value: object, nemo: Configuration) -> Outcome:
    heads = nemo.get("model.num_attention_heads") if value is None else value
    return carried({"model.language.num_query_groups": integer(heads)})


def _positions(value: object, nemo: Configuration) -> Outcome:
    length = nemo.get("model.encoder_seq_length") if value is None else value
    return carried({"model.language.max_position_embeddings": integer(length)})


def _interpolation(value: object, _: Configuration) -> Outcome:
    if value is None or number(value) == 1:
        return same("positions are not stretched")
    return cannot(f"set model.language.rope.kind=linear and model.language.rope.factor={number(value):g}")


def _llama_3_positions(value: object, _: Configuration) -> Outcome:
    if not value:
        return same("positions are not stretched")
    return carried({"model.language.rope_scaling_factor": 8.0}, "Llama 3.1's factor")


def _library(value: object, _: Configuration) -> Outcome:
    if value in ("sentencepiece", "huggingface", None):
        return same("data.tokenizer takes both kinds")
    return cannot("tokenizers are those of Hugging Face and SentencePiece: set data.tokenizer")


def _tokenizer_model(value: object, nemo: Configuration) -> Outcome:
    if not value:
        return same("none: set data.tokenizer")
    if nemo.get("model.tokenizer.library", "sentencepiece") != "sentencepiece":
        return same("for SentencePiece only")
    if text(value).startswith("nemo:"):
        return cannot("the tokenizer is inside a .nemo file: unpack it (tar) and set data.tokenizer")
    return carried({"data.tokenizer": value})


def _tokenizer_type(value: object, nemo: Configuration) -> Outcome:
    library = nemo.get("model.tokenizer.library", "sentencepiece")
    if not value or library == "sentencepiece":
        return same("the file says it")
    if library != "huggingface":
        return cannot("tokenizers are those of Hugging Face and SentencePiece: set data.tokenizer")
    return carried({"data.tokenizer": text(value)})


def _tokenizer_file(value: object, nemo: Configuration) -> Outcome:
    if not value:
        return same("not set")
    if nemo.get("model.tokenizer.library", "sentencepiece") == "sentencepiece":
        return same("not used with SentencePiece")
    return cannot("a tokenizer is one directory or one .model file: set data.tokenizer")


def _special_tokens(value: object, _: Configuration) -> Outcome:
    if not value:
        return same("none")
    return left("a tokenizer is taken as it is: tokens it lacks must be added to it, and counted in vocab_size")


_SHAPE = (
    ("num_layers", "num_layers"),
    ("hidden_size", "hidden_size"),
    ("ffn_hidden_size", "ffn_hidden_size"),
    ("num_attention_heads", "num_attention_heads"),
)

LANGUAGE_RULES: tuple[Rule, ...] = (
    *(carries(f"model.{key}", f"model.language.{path}", integer, required=True) for key, path in _SHAPE),
    decides(
        "model.num_query_groups",
        "`model.language.num_query_groups`",
        "null is num_attention_heads",
        _groups,
        absent=None,
    ),
    carries("model.kv_channels", "model.language.kv_channels", integer),
    carries("model.encoder_seq_length", "data.sequence_length", integer, required=True),
    decides(
        "model.max_position_embeddings",
        "`model.language.max_position_embeddings`",
        "not set is encoder_seq_length",
        _positions,
        absent=None,
    ),
    carries("model.make_vocab_size_divisible_by", "model.language.make_vocab_size_divisible_by", integer),
    carries("model.override_vocab_size", "model.language.vocab_size", integer, "else assumed by llm.model_type"),
    carries("model.init_method_std", "model.language.init_method_std", number),
    holds(
        "model.use_scaled_init_method",
        True,
        otherwise="initial weights that write to the residual stream are always scaled by depth",
    ),
    carries("model.hidden_dropout", "model.language.hidden_dropout", number, absent=0.1),
    carries("model.attention_dropout", "model.language.attention_dropout", number, absent=0.1),
    holds("model.ffn_dropout", 0.0, otherwise="there is no dropout inside the feed-forward layer"),
    holds(
        "model.normalization",
        "rmsnorm",
        otherwise="language models are of the Llama family: RMSNorm",
        absent="layernorm",
    ),
    carries("model.layernorm_epsilon", "model.language.layernorm_epsilon", number),
    holds(
        "model.activation",
        "fast-swiglu",
        "swiglu",
        otherwise="language models are of the Llama family: SwiGLU",
        absent="gelu",
    ),
    holds("model.bias", False, otherwise="language models are of the Llama family: no bias", absent=True),
    holds("model.qkv_bias", False, otherwise="language models are of the Llama family: no bias"),
    holds(
        "model.position_embedding_type",
        "rope",
        otherwise="language models are of the Llama family: rotary positions",
        absent="learned_absolute",
    ),
    holds("model.rotary_percentage", 1.0, otherwise="rotary positions turn the whole head"),
    holds("model.rotary_interleaved", False, otherwise="rotary positions turn halves of the head, as Llama's"),
    carries("model.rotary_base", "model.language.rotary_base", number),
    decides(
        "model.seq_len_interpolation_factor",
        "always `null`",
        "else set `model.language.rope.kind=linear`, with this `factor`",
        _interpolation,
    ),
    decides(
        "model.scale_positional_embedding",
        "`model.language.rope_scaling_factor`",
        "8, Llama 3.1's",
        _llama_3_positions,
    ),
    carries(
        "model.share_embeddings_and_output_weights",
        "model.language.share_embeddings_and_output_weights",
        boolean,
        absent=True,
    ),
    holds("model.transformer_block_type", "pre_ln", otherwise="norms stand before attention and feed-forward layer"),
    holds("model.headscale", False, otherwise="heads are not scaled"),
    holds("model.normalize_attention_scores", True, otherwise="attention scores are scaled by the head's width"),
    harmless("model.apply_query_key_layer_scaling", "the same attention, for fp16's sake"),
    holds("model.attention_type", "multihead", otherwise="multi-head and grouped attention only"),
    harmless("model.openai_gelu", "there is no GELU in the language model"),
    harmless("model.mcore_gpt", "the language model is always Megatron-Core's"),
    harmless("model.megatron_legacy", "the language model is always Megatron-Core's"),
    harmless("model.name", "the layers are Megatron-Core's, with Transformer Engine where there is a GPU"),
    harmless("model.pre_process", "follows from the pipeline"),
    harmless("model.post_process", "follows from the pipeline"),
    carries("model.seed", "trainer.seed", integer),
    decides(
        "model.mm_cfg.llm.from_pretrained",
        "`model.language.from_pretrained`",
        "hub names and Hugging Face directories; .nemo files are not read",
        _from_pretrained,
    ),
    carries("model.mm_cfg.llm.freeze", "model.language.freeze", boolean),
    decides(
        "model.mm_cfg.llm.model_type",
        "`model.language.vocab_size`, assumed",
        "32000 for llama_2, v1 and mistral, 128256 for llama_3, 256000 for nvgpt, 64000 for yi_34b",
        _model_type,
        absent="nvgpt",
    ),
    *(holds(f"model.{key}", None, otherwise=NO_NEMO_MODEL) for key in ("restore_from_path", "restore_from_pretrained")),
    holds("model.resume_from_checkpoint", None, otherwise="NeMo's checkpoints cannot be resumed"),
    decides(
        "model.tokenizer.library", "always `sentencepiece` or `huggingface`", "data.tokenizer takes both", _library
    ),
    decides("model.tokenizer.model", "`data.tokenizer`", "with sentencepiece", _tokenizer_model),
    decides("model.tokenizer.type", "`data.tokenizer`", "with huggingface", _tokenizer_type),
    *(
        decides(f"model.tokenizer.{key}", "always `null`", "one directory or one .model file", _tokenizer_file)
        for key in ("vocab_file", "merge_file", "delimiter")
    ),
    leaves("model.tokenizer.sentencepiece_legacy", False, otherwise="a tokenizer is taken as it is"),
    decides(
        "model.tokenizer.additional_special_tokens",
        "left out unless `null`",
        "a tokenizer is taken as it is",
        _special_tokens,
    ),
    harmless("model.tokenizer.use_fast", "tokenizers are transformers' own"),
    holds("model.peft.peft_scheme", None, otherwise="set model.language.lora for adapters (docs/adapters.md)"),
    holds("model.peft.restore_from_path", None, otherwise="NeMo's adapters are not read"),
    harmless("model.peft.*", "with peft_scheme"),
)
"""Rules for the keys on the language model and its tokenizer."""
