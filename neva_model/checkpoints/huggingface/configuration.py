"""The config.json of a Hugging Face directory, and whether it describes the model of a recipe."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    PreTrainedConfig,
    SiglipVisionConfig,
)

from neva_recipes.config import CheckpointError, LanguageConfig, VisionConfig

__all__ = [
    "LLAMA3_SCALING",
    "Configuration",
    "compare_language",
    "compare_projector",
    "compare_vision",
    "read_configuration",
]

LLAMA3_SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""The parts of Llama 3's rotary scaling that Megatron-Core has fixed."""


@dataclass(frozen=True)
class Configuration:
    """What a directory says about its model.

    Attributes:
        directory: The directory.
        architecture: The class that saved it, for messages.
        text: The language model, if there is one.
        vision: The vision tower, if there is one.
        image_token_index: Row of the vocabulary that only marks images, if there is one.
        vision_feature_layer: Hidden state that the projector reads, if there is a projector.
        takes_class_token: Whether the projector reads the class token too.
        projector_hidden_act: Activation between the projector's layers.
    """

    directory: Path
    architecture: str
    text: LlamaConfig | None = None
    vision: CLIPVisionConfig | SiglipVisionConfig | None = None
    image_token_index: int | None = None
    vision_feature_layer: int | None = None
    takes_class_token: bool | None = None
    projector_hidden_act: str = "gelu"


def read_configuration(directory: Path) -> Configuration:
    """Read a directory's config.json.

    Raises:
        CheckpointError: It is missing or broken, or the model is of a family that is not supported.
    """
    path = directory / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        architecture = (fields.get("architectures") or [fields.get("model_type", "unknown")])[0]
        return _parse(directory, architecture, fields)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: is missing") from None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, StrictDataclassError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: cannot be read as a model's configuration: {reason}") from None


def _parse(directory: Path, architecture: str, fields: dict[str, Any]) -> Configuration:
    kind = fields.get("model_type")
    if kind == "llama":
        return Configuration(directory, architecture, text=LlamaConfig.from_dict(fields))
    if kind in ("clip", "siglip"):
        vision_class = CLIPVisionConfig if kind == "clip" else SiglipVisionConfig
        return Configuration(directory, architecture, vision=vision_class.from_dict(fields["vision_config"]))
    if kind == "clip_vision_model":
        return Configuration(directory, architecture, vision=CLIPVisionConfig.from_dict(fields))
    if kind == "siglip_vision_model":
        return Configuration(directory, architecture, vision=SiglipVisionConfig.from_dict(fields))
    if kind == "llava" and "text_config" in fields:
        return _parse_llava(directory, architecture, LlavaConfig.from_dict(fields))
    if kind in ("llava", "llava_llama"):
        return _parse_original_llava(directory, architecture, fields)
    raise CheckpointError(f"{directory}: model_type is {kind}: expected llama, llava, clip or siglip")


def _parse_llava(directory: Path, architecture: str, config: PreTrainedConfig) -> Configuration:
    if config.text_config.model_type != "llama":
        raise CheckpointError(f"{directory}: its language model is a {config.text_config.model_type}: expected llama")
    if not isinstance(config.vision_feature_layer, int):
        raise CheckpointError(f"{directory}: several vision feature layers are joined, which is not supported")
    return Configuration(
        directory,
        architecture,
        text=config.text_config,
        vision=config.vision_config,
        image_token_index=config.image_token_index,
        vision_feature_layer=config.vision_feature_layer,
        takes_class_token=config.vision_feature_select_strategy == "full",
        projector_hidden_act=config.projector_hidden_act,
    )


def _parse_original_llava(directory: Path, architecture: str, fields: dict[str, Any]) -> Configuration:
    # The original LLaVA puts its own fields among those of Llama.
    text = LlamaConfig.from_dict({**fields, "model_type": "llama"})
    return Configuration(
        directory,
        architecture,
        text=text,
        vision_feature_layer=fields.get("mm_vision_select_layer"),
        takes_class_token=fields.get("mm_vision_select_feature", "patch") == "cls_patch",
    )


def compare_language(configuration: Configuration, language: LanguageConfig) -> None:
    """Check that a directory's language model is the recipe's; the size of the vocabulary is left to the caller.

    Raises:
        CheckpointError: A field differs; it is named with both values.
    """
    text = configuration.text
    if text is None:
        raise CheckpointError(f"{configuration.directory}: holds a {configuration.architecture}, no language model")
    rope = text.rope_parameters
    expected = {
        "num_hidden_layers": ("num_layers", language.num_layers, text.num_hidden_layers),
        "hidden_size": ("hidden_size", language.hidden_size, text.hidden_size),
        "intermediate_size": ("ffn_hidden_size", language.ffn_hidden_size, text.intermediate_size),
        "num_attention_heads": ("num_attention_heads", language.num_attention_heads, text.num_attention_heads),
        "num_key_value_heads": ("num_query_groups", language.num_query_groups, text.num_key_value_heads),
        "head_dim": ("kv_channels", language.head_size, text.head_dim),
        "rms_norm_eps": ("layernorm_epsilon", language.layernorm_epsilon, text.rms_norm_eps),
        "rope_theta": ("rotary_base", language.rotary_base, rope["rope_theta"]),
        "tie_word_embeddings": (
            "share_embeddings_and_output_weights",
            language.share_embeddings_and_output_weights,
            text.tie_word_embeddings,
        ),
    }
    _compare(configuration, "model.language", expected)
    if language.max_position_embeddings > text.max_position_embeddings:
        _compare(
            configuration,
            "model.language",
            {
                "max_position_embeddings": (
                    "max_position_embeddings",
                    language.max_position_embeddings,
                    text.max_position_embeddings,
                )
            },
        )
    for name, value, supported in (
        ("hidden_act", text.hidden_act, "silu"),
        ("attention_bias", text.attention_bias, False),
        ("mlp_bias", text.mlp_bias, False),
    ):
        if value != supported:
            raise CheckpointError(f"{configuration.directory}: {name} is {value}, only {supported} is supported")
    _compare_rotary_scaling(configuration, language, rope)


def _compare_rotary_scaling(configuration: Configuration, language: LanguageConfig, rope: dict[str, Any]) -> None:
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "llama3"):
        raise CheckpointError(f"{configuration.directory}: rope_type is {kind}, only default and llama3 are supported")
    factor = rope["factor"] if kind == "llama3" else None
    _compare(
        configuration, "model.language", {"rope factor": ("rope_scaling_factor", language.rope_scaling_factor, factor)}
    )
    for name, value in LLAMA3_SCALING.items():
        if kind == "llama3" and rope[name] != value:
            raise CheckpointError(
                f"{configuration.directory}: rope {name} is {rope[name]:g}, only {value:g} is supported"
            )


def compare_vision(configuration: Configuration, vision: VisionConfig) -> None:
    """Check that a directory's vision tower is the recipe's.

    Raises:
        CheckpointError: A field differs; it is named with both values.
    """
    tower = configuration.vision
    if tower is None:
        raise CheckpointError(f"{configuration.directory}: holds a {configuration.architecture}, no vision tower")
    _compare(
        configuration,
        "model.vision",
        {
            "model_type": ("vision_model_type", f"{vision.vision_model_type}_vision_model", tower.model_type),
            "num_hidden_layers": ("num_layers", vision.num_layers, tower.num_hidden_layers),
            "hidden_size": ("hidden_size", vision.hidden_size, tower.hidden_size),
            "intermediate_size": ("ffn_hidden_size", vision.ffn_hidden_size, tower.intermediate_size),
            "num_attention_heads": ("num_attention_heads", vision.num_attention_heads, tower.num_attention_heads),
            "image_size": ("image_size", vision.image_size, tower.image_size),
            "patch_size": ("patch_size", vision.patch_size, tower.patch_size),
            "hidden_act": ("hidden_act", vision.hidden_act, tower.hidden_act),
            "layer_norm_eps": ("layernorm_epsilon", vision.layernorm_epsilon, tower.layer_norm_eps),
        },
    )


def compare_projector(configuration: Configuration, vision: VisionConfig) -> None:
    """Check that a directory's projector reads the features that the recipe selects.

    Raises:
        CheckpointError: It reads others; the field is named with both values.
    """
    expected: dict[str, tuple[str, Any, Any]] = {}
    layer = configuration.vision_feature_layer
    if layer is not None:
        # A hidden state can be counted from either end.
        states = vision.num_layers + 1
        ours = vision.vision_select_layer
        if layer % states != ours % states:
            expected["vision_feature_layer"] = ("vision_select_layer", ours, layer)
    if vision.has_class_token and configuration.takes_class_token is not None:
        strategy = "cls_patch" if configuration.takes_class_token else "patch"
        expected["vision_feature_select_strategy"] = ("vision_select_feature", vision.vision_select_feature, strategy)
    _compare(configuration, "model.vision", expected)


def _compare(configuration: Configuration, group: str, expected: dict[str, tuple[str, Any, Any]]) -> None:
    for theirs, (ours, recipe_value, value) in expected.items():
        if recipe_value != value:
            raise CheckpointError(
                f"{configuration.directory}: {theirs} is {value}, but the recipe has {group}.{ours}={recipe_value}"
            )
