"""Small recipes to change: a language model of four layers, alone or with a vision tower."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from neva_recipes.config import (
    CheckpointConfig,
    LanguageConfig,
    LlavaDataConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    ProjectorConfig,
    Recipe,
    TextDataConfig,
    TrainerConfig,
    VisionConfig,
)

__all__ = ["changed", "image_recipe", "text_recipe"]

_SIZES = {"sequence_length": 24, "micro_batch_size": 1, "global_batch_size": 4}


def changed(node: Any, changes: Mapping[str, Any]) -> Any:
    """Return a recipe with the fields at dotted paths replaced."""
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        value = changed(getattr(node, name), {rest: value}) if rest else value
        node = dataclasses.replace(node, **{name: value})
    return node


def text_recipe(changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe of a language model alone, with some fields changed."""
    recipe = Recipe(
        name="text",
        model=ModelConfig(
            language=LanguageConfig(
                num_layers=4,
                hidden_size=32,
                ffn_hidden_size=48,
                num_attention_heads=4,
                num_query_groups=4,
                vocab_size=60,
                make_vocab_size_divisible_by=8,
                max_position_embeddings=64,
                init_method_std=0.2,  # large enough for every weight to show in the loss
            )
        ),
        data=TextDataConfig(**_SIZES),
        parallel=ParallelConfig(),
        precision=PrecisionConfig(precision="fp32"),
        optim=OptimConfig(warmup_ratio=None),
        trainer=TrainerConfig(max_steps=2, accelerator="cpu"),
        checkpoint=CheckpointConfig(),
        logging=LoggingConfig(),
    )
    return changed(recipe, changes or {})


def image_recipe(changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe of the whole model, an image taking four tokens, with some fields changed."""
    recipe = text_recipe()
    vision = VisionConfig(
        num_layers=3, hidden_size=16, ffn_hidden_size=24, num_attention_heads=2, image_size=28, patch_size=14
    )
    model = dataclasses.replace(recipe.model, vision=vision, projector=ProjectorConfig())
    data = LlavaDataConfig(conv_template="plain", **_SIZES)
    return changed(recipe, {"name": "image", "model": model, "data": data, **(changes or {})})
