"""What about a recipe keeps its model from being written as a Hugging Face directory, whatever its weights are."""

from neva_recipes.config import LlavaDataConfig, Recipe
from neva_recipes.families import vision_family

__all__ = ["why_not_exportable"]


def why_not_exportable(recipe: Recipe) -> str | None:
    """Return why the model of a recipe cannot be exported, with the remedy; `None` if it can.

    Raises:
        RecipeError: There is no such family of vision towers.
    """
    vision, projector, data = recipe.model.vision, recipe.model.projector, recipe.data
    if projector is not None and projector.num_layers > 2:
        return (
            f"model.projector.mm_projector_type={projector.mm_projector_type}: transformers' LLaVA has two layers, so "
            "only linear and mlp2x_gelu can be exported"
        )
    is_padded = isinstance(data, LlavaDataConfig) and data.image_aspect_ratio == "pad"
    if vision is not None and is_padded and not vision_family(vision).crops:
        return (
            f"data.image_aspect_ratio=pad with model.vision.vision_model_type={vision.vision_model_type}: transformers "
            "has no image processor that does this, and data.image_aspect_ratio=square can be exported"
        )
    return None
