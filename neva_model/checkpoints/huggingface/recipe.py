"""A recipe for a model that is nothing but a Hugging Face directory, so that it can be used as our own runs are."""

import json
from pathlib import Path
from typing import Any, Literal

from transformers import CLIPVisionConfig, LlamaConfig, SiglipVisionConfig

from neva_model.checkpoints.huggingface.configuration import Configuration, read_configuration
from neva_recipes.config import (
    CheckpointConfig,
    CheckpointError,
    ConvTemplate,
    LanguageConfig,
    LlavaDataConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    ProjectorConfig,
    Recipe,
    RecipeError,
    TextDataConfig,
    TrainerConfig,
    VisionConfig,
)

__all__ = ["recipe_from_huggingface"]


def recipe_from_huggingface(directory: Path, conv_template: ConvTemplate = "v1") -> Recipe:
    """Return a recipe whose model is the one a directory describes, every part loaded from there.

    Everything that only matters to training is left at its default.

    Args:
        directory: A saved LlavaForConditionalGeneration or LlamaForCausalLM.
        conv_template: Template of the conversations; a directory does not say which it was trained with.

    Raises:
        CheckpointError: The directory holds another kind of model, or its configuration contradicts itself.
    """
    configuration = read_configuration(directory)
    if configuration.text is None:
        raise CheckpointError(f"{directory}: holds a {configuration.architecture}, no language model")
    if configuration.vision is None and configuration.takes_class_token is not None:
        raise CheckpointError(
            f"{directory}: is in the layout of the original LLaVA, without its vision tower: "
            "expected a saved LlavaForConditionalGeneration or LlamaForCausalLM"
        )
    try:
        return _recipe(configuration, configuration.text, conv_template)
    except RecipeError as error:
        raise CheckpointError(f"{directory}/config.json: {error}") from None


def _recipe(configuration: Configuration, text: LlamaConfig, conv_template: ConvTemplate) -> Recipe:
    source = str(configuration.directory)
    language = _language(text, source)
    shared: dict[str, Any] = {"tokenizer": source, "sequence_length": min(2048, language.max_position_embeddings)}
    vision = projector = None
    data: LlavaDataConfig | TextDataConfig = TextDataConfig(**shared)
    if configuration.vision is not None:
        vision = _vision(configuration, configuration.vision, source)
        kind = "linear" if configuration.projector_hidden_act == "linear" else "mlp2x_gelu"
        projector = ProjectorConfig(mm_projector_type=kind, from_pretrained=source)
        aspect = _image_aspect_ratio(configuration.directory)
        data = LlavaDataConfig(**shared, conv_template=conv_template, image_aspect_ratio=aspect)
    return Recipe(
        name=configuration.directory.resolve().name,
        model=ModelConfig(
            language=language,
            vision=vision,
            projector=projector,
            use_im_start_end=vision is not None and _has_image_borders(configuration.directory),
        ),
        data=data,
        parallel=ParallelConfig(),
        precision=PrecisionConfig(),
        optim=OptimConfig(),
        trainer=TrainerConfig(max_steps=1),
        checkpoint=CheckpointConfig(),
        logging=LoggingConfig(),
    )


def _language(text: LlamaConfig, source: str) -> LanguageConfig:
    rope: dict[str, Any] = text.rope_parameters
    return LanguageConfig(
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        ffn_hidden_size=text.intermediate_size,
        num_attention_heads=text.num_attention_heads,
        num_query_groups=text.num_key_value_heads,
        kv_channels=text.head_dim,
        vocab_size=text.vocab_size,
        max_position_embeddings=text.max_position_embeddings,
        rotary_base=float(rope["rope_theta"]),
        rope_scaling_factor=rope["factor"] if rope.get("rope_type") == "llama3" else None,
        layernorm_epsilon=text.rms_norm_eps,
        share_embeddings_and_output_weights=text.tie_word_embeddings,
        from_pretrained=source,
    )


def _vision(configuration: Configuration, tower: CLIPVisionConfig | SiglipVisionConfig, source: str) -> VisionConfig:
    is_clip = tower.model_type == "clip_vision_model"
    layer = configuration.vision_feature_layer
    return VisionConfig(
        vision_model_type="clip" if is_clip else "siglip",
        num_layers=tower.num_hidden_layers,
        hidden_size=tower.hidden_size,
        ffn_hidden_size=tower.intermediate_size,
        num_attention_heads=tower.num_attention_heads,
        image_size=tower.image_size,
        patch_size=tower.patch_size,
        hidden_act=tower.hidden_act,
        layernorm_epsilon=tower.layer_norm_eps,
        vision_select_layer=-2 if layer is None else layer,
        vision_select_feature="cls_patch" if is_clip and configuration.takes_class_token else "patch",
        from_pretrained=source,
    )


def _has_image_borders(directory: Path) -> bool:
    """Whether the tokenizer has the tokens that LLaVA puts around an image; it has them only where they are used."""
    path = directory / "tokenizer.json"
    try:
        added = json.loads(path.read_text(encoding="utf-8"))["added_tokens"] if path.is_file() else []
        return {"<im_start>", "<im_end>"} <= {token["content"] for token in added}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error!r}") from None


def _image_aspect_ratio(directory: Path) -> Literal["square", "pad"]:
    """Return `pad` where the directory's processor pads images to a square (transformers: `do_pad`)."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        try:
            fields = json.loads((directory / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{directory / name}: cannot be read: {error}") from None
        # A processor of several kinds of input keeps that of images in a group of its own.
        return "pad" if fields.get("image_processor", fields).get("do_pad") else "square"
    return "square"
