"""Makes a recipe for a model in a Hugging Face directory, so that it can be used like our own runs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from neva_recipes.config import (
    CheckpointConfig,
    CheckpointError,
    LlavaDataConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PlainTable,
    PrecisionConfig,
    ProjectorConfig,
    Recipe,
    RecipeError,
    TextDataConfig,
    TrainerConfig,
    VisionConfig,
)
from neva_recipes.families import VisionFamily
from neva_recipes.plan import check_recipe
from neva_recipes.plan.huggingface import (
    Configuration,
    Directory,
    compare_part,
    image_side,
    open_directory,
    read_image_processor,
    read_object,
    tower_directory,
    tower_fields_of,
)
from neva_recipes.plan.origins.checkpoints import PARTS

__all__ = ["recipe_from_huggingface"]


def recipe_from_huggingface(directory: Path, *, tokens: int = 0) -> Recipe:
    """Return a recipe for the model that a directory describes, with every part loaded from there.

    Everything that only matters for training has its default.

    Args:
        directory: A saved LlavaForConditionalGeneration or language model, or a model of the original LLaVA.
        tokens: Tokens of the directory's tokenizer; the model gets rows for tokens that have none.

    Raises:
        CheckpointError: The directory holds another kind of model, or its configuration contradicts itself or breaks a
            rule on recipes.
    """
    opened = open_directory(directory, thorough=True)
    configuration = opened.configuration
    if configuration is None or configuration.text is None:
        kind = configuration.architecture if configuration is not None else "projector"
        raise CheckpointError(f"{directory}: holds a {kind}, no language model")
    towers = _open_tower(opened, configuration)
    try:
        recipe = _recipe(opened, configuration, towers, tokens)
    except RecipeError as error:
        raise CheckpointError(f"{directory}/config.json: {error}") from None
    for part in PARTS:
        if getattr(recipe.model, part) is not None:
            source = towers if part == "vision" and towers is not None else opened
            for mismatch in compare_part(source, recipe.model, part):
                raise CheckpointError(f"{source.path}: {mismatch.message}")
    for finding in check_recipe(recipe):
        if finding.severity == "error":
            raise CheckpointError(f"{directory}/config.json: {finding.message}")
    return recipe


def _open_tower(opened: Directory, configuration: Configuration) -> Directory | None:
    """Return the directory that the vision tower of a model comes from; `None` for a text-only model.

    The original LLaVA leaves the tower in its own directory unless it trained it, and only that directory says how the
    tower computes.

    Raises:
        CheckpointError: The directory is not here, nor fetched from the hub, or cannot be used.
    """
    if not configuration.is_original:
        return opened if configuration.vision is not None else None
    elsewhere = tower_directory(configuration.tower_source, weights=opened.vision_spelling is None)
    if elsewhere is None:
        raise CheckpointError(
            f"{opened.path}: is in the layout of the original LLaVA, whose config.json leaves its vision tower to "
            f"mm_vision_tower={configuration.tower_source}, which is not a directory here, nor in the cache of "
            "Hugging Face's libraries: write the path of one there, or fetch it with hf download"
        )
    return opened if opened.vision_spelling is not None else open_directory(elsewhere, thorough=True)


def _recipe(
    opened: Directory,
    configuration: Configuration,
    towers: Directory | None,
    tokens: int,
) -> Recipe:
    source = str(opened.path)
    there = configuration.language
    assert there is not None
    language = dataclasses.replace(
        there,
        # A tokenizer may have tokens without rows in the model.
        vocab_size=max(there.vocab_size, tokens),
        share_embeddings_and_output_weights=there.share_embeddings_and_output_weights and not opened.has_own_output,
        from_pretrained=source,
    )
    shared: PlainTable = {"tokenizer": source, "sequence_length": min(2048, language.longest_sequence)}
    vision = projector = None
    data: LlavaDataConfig | TextDataConfig = TextDataConfig(**shared)
    marks = False
    if towers is not None and towers.tower is not None:
        assert towers.tower_family is not None
        vision = _vision(configuration, towers.tower_family, towers.tower, str(towers.path))
        projector = ProjectorConfig(mm_projector_type=_projector_type(configuration), from_pretrained=source)
        # The original LLaVA stores in config.json what transformers stores in the settings of its processor.
        pads, told = configuration.pads_images, configuration.image_marks
        aspect = _image_aspect_ratio(opened.path) if pads is None else "pad" if pads else "square"
        marks = _has_image_borders(opened.path) if told is None else told
        data = LlavaDataConfig(**shared, image_aspect_ratio=aspect)
    return Recipe(
        name=opened.path.resolve().name,
        model=ModelConfig(
            language=language,
            vision=vision,
            projector=projector,
            use_im_start_end=marks,
        ),
        data=data,
        parallel=ParallelConfig(),
        precision=PrecisionConfig(),
        optim=OptimConfig(),
        trainer=TrainerConfig(max_steps=1),
        checkpoint=CheckpointConfig(),
        logging=LoggingConfig(),
    )


def _vision(configuration: Configuration, family: VisionFamily, tower: Mapping[str, Any], source: str) -> VisionConfig:
    layer = configuration.vision_feature_layer
    skips = configuration.skips_first
    feature: Literal["patch", "cls_patch", "skip_first"] = "patch"
    if bool(skips) != family.has_class_token:
        feature = "cls_patch" if family.has_class_token else "skip_first"
    fields = tower_fields_of(family, tower)
    settings = read_image_processor(Path(source)) if family.interpolates else None
    side = image_side(settings[1], crops=family.crops) if settings is not None else None
    if side is not None:
        fields["image_size"] = side
    return VisionConfig(
        **fields,
        vision_select_layer=-2 if layer is None else layer,
        vision_select_feature=feature,
        from_pretrained=source,
    )


def _projector_type(configuration: Configuration) -> str:
    if configuration.is_original:
        return configuration.projector_type or "linear"
    return "linear" if configuration.projector_hidden_act == "linear" else "mlp2x_gelu"


def _has_image_borders(directory: Path) -> bool:
    """Return whether the tokenizer has LLaVA's tokens around an image; it only has them if they are used."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        return False
    added = read_object(path, "a tokenizer").get("added_tokens") or []
    try:
        return {"<im_start>", "<im_end>"} <= {token["content"] for token in added}
    except (KeyError, TypeError):
        raise CheckpointError(f"{path}: cannot be read as a tokenizer: added_tokens is not a list of tokens") from None


def _image_aspect_ratio(directory: Path) -> Literal["square", "pad"]:
    """Return `pad` if the directory's processor pads images to a square (transformers: `do_pad`)."""
    settings = read_image_processor(directory)
    return "pad" if settings is not None and settings[1].get("do_pad") else "square"
