"""How the processes, layers and microbatches of a recipe are divided."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from neva_recipes.config import Recipe, RecipeError
from neva_recipes.plan._sizes import data_parallel_size, devices_per_node, layers_per_stage, num_microbatches
from neva_recipes.plan.checks import check_division

__all__ = ["Coordinates", "Layout", "Stage", "layout_of"]


@dataclass(frozen=True)
class Coordinates:
    """Where one rank stands.

    Attributes:
        rank: Number of the process among all.
        node: Number of its machine.
        data: Which replica of the model it belongs to.
        pipeline: Which stage of that replica.
        context: Which part of every sequence.
        tensor: Which part of every layer.
    """

    rank: int
    node: int
    data: int
    pipeline: int
    context: int
    tensor: int


@dataclass(frozen=True)
class Stage:
    """What one pipeline stage holds.

    Attributes:
        index: Number of the stage.
        chunks: Layers of the language model it holds, one range for each virtual stage; layers count from 0.
        has_embedding: Whether it embeds tokens, and so holds the vision tower and the projector too, if there are any.
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


@dataclass(frozen=True)
class Layout:
    """How processes and microbatches follow from a recipe.

    Attributes:
        num_nodes: Machines.
        processes_per_node: Processes on each machine, one per GPU.
        tensor_model_parallel_size: Processes that share every layer.
        pipeline_model_parallel_size: Stages.
        context_parallel_size: Processes that share every sequence.
        data_parallel_size: Replicas of the model.
        num_microbatches: Microbatches each replica takes per optimizer step.
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
        """Processes that one replica of the model takes."""
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size * self.context_parallel_size

    @property
    def bubble(self) -> float:
        """Share of a step in which a pipeline stage has nothing to do, all stages taken as equally long.

        With p stages of v pieces and m microbatches it is (p-1) / (v*m + p-1): arXiv 2104.04473, section 2.2, as a
        share of the whole step.
        """
        idle = self.pipeline_model_parallel_size - 1
        return idle / (len(self.stages[0].chunks) * self.num_microbatches + idle)

    @cached_property
    def ranks(self) -> tuple[Coordinates, ...]:
        """Where every rank stands, in Megatron-Core's order: tensor fastest, then context, data, pipeline."""
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
        RecipeError: They cannot be divided as asked; `neva_recipes.plan.check_recipe` says why in full.
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
    """Yield the stages; virtual stage v of stage s holds what comes after virtual stage v-1 of the last stage."""
    sizes = layers_per_stage(recipe)
    assert sizes is not None
    pieces = recipe.parallel.virtual_pipeline_model_parallel_size or 1
    for index, size in enumerate(sizes):
        chunks = []
        for piece in range(pieces):
            first = sum(sizes) // pieces * piece + sum(sizes[:index]) // pieces
            chunks.append(range(first, first + size // pieces))
        yield Stage(index, tuple(chunks), index == 0, index == len(sizes) - 1)
