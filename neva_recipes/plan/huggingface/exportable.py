"""What about a recipe keeps its model from being written as a Hugging Face directory, whatever its weights are."""

from neva_recipes.config import ProjectorConfig, Recipe

__all__ = ["DEEP_PROJECTOR", "has_deep_projector", "why_not_exportable"]

DEEP_PROJECTOR = "transformers' LLaVA has two layers, so only linear and mlp2x_gelu can be exported"


def has_deep_projector(projector: ProjectorConfig | None) -> bool:
    """Return whether a projector has more layers than transformers' LLaVA can hold."""
    return projector is not None and projector.num_layers > 2


def why_not_exportable(recipe: Recipe) -> str | None:
    """Return why the model of a recipe cannot be exported, with the remedy; `None` if it can."""
    projector = recipe.model.projector
    if projector is None or not has_deep_projector(projector):
        return None
    return f"model.projector.mm_projector_type={projector.mm_projector_type}: {DEEP_PROJECTOR}"
