"""How many processes a recipe asks for, whether or not they divide."""

from neva_recipes.config import Recipe

__all__ = ["devices_per_node", "model_parallel_size"]


def model_parallel_size(recipe: Recipe) -> int:
    """Return the processes that one replica of the model takes."""
    parallel = recipe.parallel
    return parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size * parallel.context_parallel_size


def devices_per_node(recipe: Recipe) -> int:
    """Return the processes on each machine; where the recipe does not say, as many as one replica needs."""
    return recipe.trainer.devices or -(-model_parallel_size(recipe) // recipe.trainer.num_nodes)
