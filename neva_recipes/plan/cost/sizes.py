"""The processes, replicas, micro batches, layers and bytes of a recipe, whether or not they divide evenly."""

from dataclasses import dataclass

from neva_recipes.config import Recipe

__all__ = [
    "Stage",
    "data_parallel_size",
    "devices_per_node",
    "element_bytes",
    "layers_per_stage",
    "model_parallel_size",
    "num_microbatches",
]


@dataclass(frozen=True)
class Stage:
    """What one pipeline stage holds.

    Attributes:
        index: Number of the stage.
        chunks: Layers of the language model it holds, one range for each virtual stage; layers count from 0.
        has_embedding: Whether it embeds tokens; then it also holds the vision tower and the projector, if any.
        has_output: Whether it computes logits and loss.
    """

    index: int
    chunks: tuple[range, ...]
    has_embedding: bool
    has_output: bool

    @property
    def num_layers(self) -> int:
        """Number of layers of the language model."""
        return sum(map(len, self.chunks))


def model_parallel_size(recipe: Recipe) -> int:
    """Return the number of processes of one replica of the model."""
    parallel = recipe.parallel
    return parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size * parallel.context_parallel_size


def devices_per_node(recipe: Recipe) -> int:
    """Return the processes on each machine; if the recipe does not say, as many as one replica needs."""
    return recipe.trainer.devices or -(-model_parallel_size(recipe) // recipe.trainer.num_nodes)


def data_parallel_size(recipe: Recipe) -> int | None:
    """Return the number of replicas of the model; `None` if the processes do not make up whole replicas."""
    replicas, rest = divmod(recipe.trainer.num_nodes * devices_per_node(recipe), model_parallel_size(recipe))
    return None if rest else replicas


def num_microbatches(recipe: Recipe) -> int | None:
    """Return the micro batches of each replica in an optimizer step; `None` if the batch cannot be divided."""
    replicas = data_parallel_size(recipe)
    if replicas is None:
        return None
    number, rest = divmod(recipe.data.global_batch_size, recipe.data.micro_batch_size * replicas)
    return None if rest else number


def layers_per_stage(recipe: Recipe) -> list[int] | None:
    """Return the layers of each pipeline stage; `None` if they cannot be divided."""
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
