"""How many processes, replicas, microbatches, layers and bytes a recipe asks for, whether or not they divide."""

from neva_recipes.config import Recipe

__all__ = [
    "data_parallel_size",
    "devices_per_node",
    "element_bytes",
    "layers_per_stage",
    "model_parallel_size",
    "num_microbatches",
]


def model_parallel_size(recipe: Recipe) -> int:
    """Return the processes that one replica of the model takes."""
    parallel = recipe.parallel
    return parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size * parallel.context_parallel_size


def devices_per_node(recipe: Recipe) -> int:
    """Return the processes on each machine; where the recipe does not say, as many as one replica needs."""
    return recipe.trainer.devices or -(-model_parallel_size(recipe) // recipe.trainer.num_nodes)


def data_parallel_size(recipe: Recipe) -> int | None:
    """Return the replicas of the model; none if the processes do not make up whole ones."""
    replicas, rest = divmod(recipe.trainer.num_nodes * devices_per_node(recipe), model_parallel_size(recipe))
    return None if rest else replicas


def num_microbatches(recipe: Recipe) -> int | None:
    """Return the microbatches each replica takes per optimizer step; none if they cannot be divided."""
    replicas = data_parallel_size(recipe)
    if replicas is None:
        return None
    number, rest = divmod(recipe.data.global_batch_size, recipe.data.micro_batch_size * replicas)
    return None if rest else number


def layers_per_stage(recipe: Recipe) -> list[int] | None:
    """Return the layers of each pipeline stage; none if they cannot be divided."""
    parallel = recipe.parallel
    first, last = parallel.num_layers_in_first_pipeline_stage, parallel.num_layers_in_last_pipeline_stage
    rest = recipe.model.language.num_layers - (first or 0) - (last or 0)
    others = parallel.pipeline_model_parallel_size - (first is not None) - (last is not None)
    if others < 0 or (others == 0) != (rest == 0) or rest < 0 or (others and rest % others):
        return None
    middle = [rest // others] * others if others else []
    return [*([first] if first is not None else []), *middle, *([last] if last is not None else [])]


def element_bytes(recipe: Recipe) -> int:
    """Return the bytes of a weight or an activation."""
    return 2 if recipe.precision.precision == "bf16" else 4
