"""Recipes of small models in many shapes and layouts, the same in every process that asks for them."""

import random

from neva_recipes import llava
from neva_recipes.config import Recipe, build, set_field
from neva_recipes.families import language_families

__all__ = ["changed", "random_recipes", "small_recipe"]


def small_recipe(changes: dict[str, object] | None = None, stage: str = "finetune") -> Recipe:
    """Return a LLaVA recipe of a model with four layers of width 32, some fields changed by dotted path."""
    recipe = getattr(llava, stage)(size="tiny")
    small = {
        "model.language.hidden_size": 32,
        "model.language.ffn_hidden_size": 48,
        "model.language.num_query_groups": 2,
        "model.language.vocab_size": 100,
        "model.language.make_vocab_size_divisible_by": 8,
        "model.vision.num_layers": 3,
        "model.vision.hidden_size": 16,
        "model.vision.ffn_hidden_size": 24,
        "model.vision.num_attention_heads": 2,
        "model.vision.image_size": 28,
        "data.sequence_length": 64,
        "data.micro_batch_size": 2,
        "data.global_batch_size": 48,
    }
    return changed(recipe, {**small, **(changes or {})})


def changed(recipe, changes: dict[str, object]) -> Recipe:
    """Return a built recipe with fields changed by dotted path; `text` of anything but false makes it text-only."""
    changes = dict(changes)
    if changes.pop("text", False):
        recipe.model.vision = recipe.model.projector = None
        changes = {path: value for path, value in changes.items() if not path.startswith(("model.v", "model.p"))}
    for path, value in changes.items():
        set_field(recipe, path, str(value).lower() if isinstance(value, bool) or value is None else str(value))
    return build(recipe)


_TOWERS = (("clip", "quick_gelu", 24), ("siglip", "gelu_pytorch_tanh", 24), ("dinov2", "gelu", 32))
"""Families of towers, each with an activation and a width of the feed-forward layers that it can have."""


def random_recipes(seed: int, number: int) -> list[Recipe]:
    """Return recipes of many architectures and layouts, none of which breaks a rule of Megatron-Core's."""
    generator = random.Random(seed)
    return [small_recipe(_draw(generator)) for _ in range(number)]


def _draw(generator: random.Random) -> dict[str, object]:
    choose = generator.choice
    tensor, pipeline = choose([1, 2, 4]), choose([1, 1, 2, 3])
    virtual = choose([None, 2]) if pipeline > 1 else None
    heads = choose([4, 8])
    layers = pipeline * (virtual or 1) * choose([1, 2])
    tower, activation, ffn = choose(_TOWERS)
    groups = choose([1, 2, 4, heads])
    changes: dict[str, object] = {
        "model.language.family": choose([family.name for family in language_families()]),
        "trainer.devices": tensor * pipeline * choose([1, 2]),
        "parallel.tensor_model_parallel_size": tensor,
        "parallel.pipeline_model_parallel_size": pipeline,
        "parallel.virtual_pipeline_model_parallel_size": virtual,
        "model.language.num_layers": layers,
        "model.language.hidden_size": heads * choose([4, 6]),
        "model.language.num_attention_heads": heads,
        "model.language.num_query_groups": groups,
        "model.language.kv_channels": choose([None, 6, 8]),
        "model.language.ffn_hidden_size": 4 * choose([9, 17]),
        "model.language.vocab_size": generator.randrange(50, 200),
        "model.language.make_vocab_size_divisible_by": choose([1, 8, 128]),
        "model.language.share_embeddings_and_output_weights": choose([True, False]),
        "model.language.freeze": choose([True, False]),
        "model.vision.vision_model_type": tower,
        "model.vision.hidden_act": activation,
        "model.vision.ffn_hidden_size": ffn,
        "model.vision.position_image_size": choose([28, 70]) if tower == "dinov2" else None,
        "model.vision.vision_select_layer": choose([-1, -2, 1, 0]),
        "model.vision.freeze": choose([True, False]),
        "model.projector.mm_projector_type": choose(["linear", "mlp1x_gelu", "mlp2x_gelu", "mlp3x_gelu"]),
        "model.projector.freeze": choose([True, False]),
        "text": choose([False, False, True]),
    }
    if pipeline > 1 and virtual is None and choose([True, False]):
        changes["parallel.num_layers_in_first_pipeline_stage"] = 1
        changes["model.language.num_layers"] = 1 + (pipeline - 1) * choose([1, 2])
    return changes
