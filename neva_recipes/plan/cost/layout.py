"""How the processes, layers and micro batches of a recipe are divided."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from neva_recipes.config import Recipe, RecipeError
from neva_recipes.plan.checks import check_division
from neva_recipes.plan.cost.sizes import Stage, data_parallel_size, devices_per_node, layers_per_stage, num_microbatches

__all__ = ["Coordinates", "Layout", "layout_of"]


@dataclass(frozen=True)
class Coordinates:
    """The position of one rank.

    Attributes:
        rank: Number of the process among all processes.
        node: Number of its machine.
        data: Replica of the model that it belongs to.
        pipeline: Stage of that replica.
        context: Part of every sequence.
        tensor: Part of every layer.
    """

    rank: int
    node: int
    data: int
    pipeline: int
    context: int
    tensor: int


@dataclass(frozen=True)
class Layout:
    """How the processes and micro batches of a recipe are divided.

    Attributes:
        num_nodes: Machines.
        processes_per_node: Processes on each machine, one per GPU.
        tensor_model_parallel_size: Processes that share every layer.
        pipeline_model_parallel_size: Stages.
        context_parallel_size: Processes that share every sequence.
        data_parallel_size: Replicas of the model.
        num_microbatches: Micro batches of each replica in an optimizer step.
        stages: What each pipeline stage holds.
    """

    num_nodes: int
    processes_per_node: int
    tensor_model_parallel_size: int
    pipeline_model_parallel_size: int
    context_parallel_size: int
    data_parallel_size: int
    num_microbatches: int
    stages: tuple[Stage, ...]

    @property
    def world_size(self) -> int:
        """Number of processes over all machines."""
        return self.num_nodes * self.processes_per_node

    @property
    def model_parallel_size(self) -> int:
        """Number of processes of one replica of the model."""
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size * self.context_parallel_size

    @property
    def bubble(self) -> float:
        """Share of a step in which a pipeline stage idles, if all stages take the same time.

        With p stages, v virtual stages each and m micro batches it is (p-1) / (v*m + p-1): arXiv 2104.04473, section
        2.2, as a share of the whole step.
        """
        idle = self.pipeline_model_parallel_size - 1
        return idle / (len(self.stages[0].chunks) * self.num_microbatches + idle)

    @cached_property
    def ranks(self) -> tuple[Coordinates, ...]:
        """The position of every rank, in Megatron-Core's order: tensor fastest, then context, data, pipeline."""
        return tuple(self._coordinates())

    def _coordinates(self) -> Iterator[Coordinates]:
        for rank in range(self.world_size):
            rest, tensor = divmod(rank, self.tensor_model_parallel_size)
            rest, context = divmod(rest, self.context_parallel_size)
            pipeline, data = divmod(rest, self.data_parallel_size)
            yield Coordinates(rank, rank // self.processes_per_node, data, pipeline, context, tensor)


def layout_of(recipe: Recipe) -> Layout:
    """Return how a recipe's processes, layers and batch are divided.

    Raises:
        RecipeError: They cannot be divided as asked; `neva_recipes.plan.check_recipe` gives all reasons.
    """
    for finding in check_division(recipe):
        raise RecipeError(finding.line())
    parallel, replicas, microbatches = recipe.parallel, data_parallel_size(recipe), num_microbatches(recipe)
    assert replicas is not None and microbatches is not None
    return Layout(
        num_nodes=recipe.trainer.num_nodes,
        processes_per_node=devices_per_node(recipe),
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        context_parallel_size=parallel.context_parallel_size,
        data_parallel_size=replicas,
        num_microbatches=microbatches,
        stages=tuple(_stages(recipe)),
    )


def _stages(recipe: Recipe) -> Iterator[Stage]:
    """Yield the stages; virtual stage v of stage 0 continues after virtual stage v-1 of the last stage."""
    sizes = layers_per_stage(recipe)
    assert sizes is not None
    pieces = recipe.parallel.virtual_pipeline_model_parallel_size or 1
    for index, size in enumerate(sizes):
        chunks = []
        for piece in range(pieces):
            first = sum(sizes) // pieces * piece + sum(sizes[:index]) // pieces
            chunks.append(range(first, first + size // pieces))
        yield Stage(index, tuple(chunks), index == 0, index == len(sizes) - 1)
