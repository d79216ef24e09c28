"""The config.json of a Hugging Face directory that lies here, compared with the model of a recipe.

The worker asks transformers for the same and stops at the first difference (neva_model/checkpoints/huggingface); here
all are told before anything starts. Defaults are those of transformers' configuration classes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError, LanguageConfig, ModelConfig, VisionConfig

__all__ = ["Configuration", "Mismatch", "compare_part", "read_configuration", "vocabulary_sizes"]

_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
_TOWER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
}
_TOWERS: dict[str, dict[str, Any]] = {
    "clip_vision_model": {**_TOWER, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "siglip_vision_model": {**_TOWER, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
}
_LLAVA_TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""What a LlavaConfig without any vision_config has."""

_LLAMA3_SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""The parts of Llama 3's rotary scaling that Megatron-Core has fixed."""


@dataclass(frozen=True)
class Mismatch:
    """One thing in which a directory is not what the recipe says.

    Attributes:
        message: The directory's own name for it and its value there.
        field: Dotted path of the recipe's field; none where no field could be set to it.
        value: What that field would have to hold.
    """

    message: str
    field: str | None = None
    value: Any = None


@dataclass(frozen=True)
class Configuration:
    """What a directory says about its model.

    Attributes:
        architecture: The class that saved it, for messages.
        text: Fields of the language model, defaults filled in; none if there is none.
        vision: The same of the vision tower, with its `model_type`.
        image_token_index: Row of the vocabulary that only marks images, if there is one.
        vision_feature_layer: Hidden state that the projector reads, if the directory says.
        takes_class_token: Whether the projector reads the class token too, if the directory says.
    """

    architecture: str
    text: Mapping[str, Any] | None = None
    vision: Mapping[str, Any] | None = None
    image_token_index: int | None = None
    vision_feature_layer: int | None = None
    takes_class_token: bool | None = None


def read_configuration(directory: Path) -> Configuration:
    """Read a directory's config.json.

    Raises:
        CheckpointError: It is missing or broken, or the model is of a family that is not supported.
    """
    path = directory / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        architecture = str((fields.get("architectures") or [fields.get("model_type", "unknown")])[0])
        return _parse(directory, architecture, fields)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: is missing") from None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: cannot be read as a model's configuration: {error}") from None


def _parse(directory: Path, architecture: str, fields: dict[str, Any]) -> Configuration:
    kind = fields.get("model_type")
    if kind == "llama":
        return Configuration(architecture, text=_text(fields))
    if kind in ("clip", "siglip"):
        return Configuration(architecture, vision=_vision(f"{kind}_vision_model", fields["vision_config"]))
    if kind in _TOWERS:
        return Configuration(architecture, vision=_vision(str(kind), fields))
    if kind == "llava" and "text_config" in fields:
        return _parse_llava(directory, architecture, fields)
    if kind in ("llava", "llava_llama"):
        # The original LLaVA puts its own fields among those of Llama.
        return Configuration(
            architecture,
            text=_text(fields),
            vision_feature_layer=fields.get("mm_vision_select_layer"),
            takes_class_token=fields.get("mm_vision_select_feature", "patch") == "cls_patch",
        )
    raise CheckpointError(f"{directory}: model_type is {kind}: expected llama, llava, clip or siglip")


def _parse_llava(directory: Path, architecture: str, fields: dict[str, Any]) -> Configuration:
    text = fields["text_config"] or {}
    if text.get("model_type", "llama") != "llama":
        raise CheckpointError(f"{directory}: its language model is a {text['model_type']}: expected llama")
    vision = fields.get("vision_config") or _LLAVA_TOWER
    layer = fields.get("vision_feature_layer", -2)
    if not isinstance(layer, int):
        raise CheckpointError(f"{directory}: several vision feature layers are joined, which is not supported")
    return Configuration(
        architecture,
        text=_text(text),
        vision=_vision(str(vision.get("model_type", "clip_vision_model")), vision),
        image_token_index=fields.get("image_token_index", fields.get("image_token_id", 32000)),
        vision_feature_layer=layer,
        takes_class_token=fields.get("vision_feature_select_strategy", "default") == "full",
    )


def _text(fields: Mapping[str, Any]) -> dict[str, Any]:
    text = {**_LLAMA, **fields}
    if text.get("num_key_value_heads") is None:
        text["num_key_value_heads"] = text["num_attention_heads"]
    if text.get("head_dim") is None:
        text["head_dim"] = text["hidden_size"] // text["num_attention_heads"]
    rope = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
    rope.setdefault("rope_theta", fields.get("rope_theta") or 10000.0)
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("original_max_position_embeddings", text["max_position_embeddings"])
    text["rope"] = rope
    return text


def _vision(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {**_TOWERS.get(kind, {}), **fields, "model_type": kind}


def compare_part(configuration: Configuration, model: ModelConfig, part: str) -> Iterator[Mismatch]:
    """Yield in what a directory's language model, vision tower or projector is not the recipe's.

    The size of the vocabulary is left to `vocabulary_sizes`.
    """
    if part == "language":
        if configuration.text is None:
            yield Mismatch(f"holds a {configuration.architecture}, no language model")
        else:
            yield from _compare_language(configuration.text, model.language)
    elif part == "vision" and model.vision is not None:
        if configuration.vision is None:
            yield Mismatch(f"holds a {configuration.architecture}, no vision tower")
        else:
            yield from _compare_vision(configuration.vision, model.vision)
    elif part == "projector" and model.vision is not None:
        yield from _compare_selection(configuration, model.vision)


def _compare_language(text: Mapping[str, Any], language: LanguageConfig) -> Iterator[Mismatch]:
    rope = text["rope"]
    pairs = [
        ("num_hidden_layers", text["num_hidden_layers"], "num_layers", language.num_layers),
        ("hidden_size", text["hidden_size"], "hidden_size", language.hidden_size),
        ("intermediate_size", text["intermediate_size"], "ffn_hidden_size", language.ffn_hidden_size),
        ("num_attention_heads", text["num_attention_heads"], "num_attention_heads", language.num_attention_heads),
        ("num_key_value_heads", text["num_key_value_heads"], "num_query_groups", language.num_query_groups),
        ("head_dim", text["head_dim"], "kv_channels", language.head_size),
        ("rms_norm_eps", text["rms_norm_eps"], "layernorm_epsilon", language.layernorm_epsilon),
        ("rope_theta", rope["rope_theta"], "rotary_base", language.rotary_base),
        (
            "tie_word_embeddings",
            text["tie_word_embeddings"],
            "share_embeddings_and_output_weights",
            language.share_embeddings_and_output_weights,
        ),
    ]
    if language.max_position_embeddings > text["max_position_embeddings"]:
        longest = text["max_position_embeddings"]
        pairs.append(("max_position_embeddings", longest, "max_position_embeddings", language.max_position_embeddings))
    yield from _differing("model.language", pairs)
    for name, supported in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if text[name] != supported:
            yield Mismatch(f"{name} is {text[name]}, only {supported} is supported")
    yield from _compare_rotary_scaling(rope, language)


def _compare_rotary_scaling(rope: Mapping[str, Any], language: LanguageConfig) -> Iterator[Mismatch]:
    kind = rope["rope_type"]
    if kind not in ("default", "llama3"):
        yield Mismatch(f"rope_type is {kind}, only default and llama3 are supported")
        return
    factor = rope.get("factor") if kind == "llama3" else None
    yield from _differing(
        "model.language", [("rope factor", factor, "rope_scaling_factor", language.rope_scaling_factor)]
    )
    for name, supported in _LLAMA3_SCALING.items():
        if kind == "llama3" and rope.get(name) != supported:
            yield Mismatch(f"rope {name} is {rope.get(name)}, only {supported:g} is supported")


def _compare_vision(tower: Mapping[str, Any], vision: VisionConfig) -> Iterator[Mismatch]:
    kind = tower["model_type"]
    if kind not in _TOWERS:
        yield Mismatch(f"its vision tower is a {kind}: expected clip_vision_model or siglip_vision_model")
        return
    names = {
        "num_hidden_layers": "num_layers",
        "hidden_size": "hidden_size",
        "intermediate_size": "ffn_hidden_size",
        "num_attention_heads": "num_attention_heads",
        "image_size": "image_size",
        "patch_size": "patch_size",
        "hidden_act": "hidden_act",
        "layer_norm_eps": "layernorm_epsilon",
    }
    family = kind.removesuffix("_vision_model")
    yield from _differing(
        "model.vision",
        [
            ("model_type", family, "vision_model_type", vision.vision_model_type),
            *((theirs, tower[theirs], ours, getattr(vision, ours)) for theirs, ours in names.items()),
        ],
    )


def _compare_selection(configuration: Configuration, vision: VisionConfig) -> Iterator[Mismatch]:
    """Yield in what the projector reads other features than those that the recipe selects."""
    layer, selected = configuration.vision_feature_layer, vision.vision_select_layer
    # A hidden state can be counted from either end.
    states = vision.num_layers + 1
    if layer is not None and layer % states != selected % states:
        yield from _differing("model.vision", [("vision_feature_layer", layer, "vision_select_layer", selected)])
    if vision.has_class_token and configuration.takes_class_token is not None:
        feature = "cls_patch" if configuration.takes_class_token else "patch"
        theirs = "vision_feature_select_strategy"
        yield from _differing(
            "model.vision", [(theirs, feature, "vision_select_feature", vision.vision_select_feature)]
        )


def _differing(group: str, pairs: list[tuple[str, Any, str, Any]]) -> Iterator[Mismatch]:
    for theirs, value, ours, held in pairs:
        if value != held:
            yield Mismatch(f"{theirs} is {value}", f"{group}.{ours}", value)


def vocabulary_sizes(configuration: Configuration) -> list[int]:
    """Return the sizes of vocabulary that a directory's language model can be loaded into, `use_im_start_end` aside."""
    if configuration.text is None:
        return []
    sizes = [configuration.text["vocab_size"]]
    if configuration.image_token_index is not None:
        # The rows from the image token on only serve transformers: the image token itself, and padding.
        sizes.append(configuration.image_token_index)
    return sizes
