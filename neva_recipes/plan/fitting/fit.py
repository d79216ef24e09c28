"""Layouts of a recipe that fit on some GPUs, fastest first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from neva_recipes.config import Draft, PlainTable, Recipe, RecipeError, build
from neva_recipes.plan.checks import check_recipe, is_valid, with_values
from neva_recipes.plan.cost.cost import Cost, cost_of
from neva_recipes.plan.cost.gpus import GPUS_OF_A_MACHINE, Gpu, find_gpu
from neva_recipes.plan.cost.layout import Layout, layout_of
from neva_recipes.plan.cost.memory import GIB, StageMemory, memory_of
from neva_recipes.plan.cost.rows import row_multiple
from neva_recipes.plan.data.lengths import Lengths, SampleLengths, lengths_of, sample_lengths
from neva_recipes.plan.findings import field_value
from neva_recipes.plan.fitting.memory_check import NO_RECOMPUTE, RECOMPUTE_EVERY_LAYER

__all__ = ["Candidate", "Fit", "fewest_gpus", "fit", "search_layouts"]

_LARGEST_MICRO_BATCH = 64
_MOST_PARTS = 4096
"""The most parts that layers, sequences and processes are divided into."""
_MOST_GPUS = 64
"""The search for enough GPUs ends at this number."""
_SHORTEST_PART = 4096
"""Fewest tokens of a sequence for each context-parallel GPU; with fewer, splitting costs more than it saves."""

_NEXT_TO_NO_LONGER = 1.02
"""Factor by which a step may be longer with fewer virtual stages, since their messages cost more than their bytes."""


@dataclass(frozen=True)
class Candidate:
    """One layout of a recipe.

    Attributes:
        overrides: Fields to set in the recipe, by dotted path; without fields that already hold their value.
        recipe: The recipe with these fields set.
        layout: How its processes, layers and batch are divided.
        memory: Bytes on a GPU of each pipeline stage, if every row has its maximum length.
        cost: Operations, time and GPU hours.
    """

    overrides: Mapping[str, Any]
    recipe: Recipe
    layout: Layout
    memory: tuple[StageMemory, ...]
    cost: Cost

    @property
    def peak(self) -> float:
        """Bytes on the GPU that holds the most."""
        return max(stage.total for stage in self.memory)


@dataclass(frozen=True)
class Fit:
    """The result of a search for layouts.

    Attributes:
        gpu: The type of GPU.
        lengths: The sample lengths that the estimate assumes for the unchanged recipe, and their source.
        candidates: The layouts that fit, fastest first. For each tensor-, pipeline- and context-parallel size, with and
            without recomputation: the fastest micro batch size and number of virtual stages.
        nearest: The layout that needs the least memory, if no layout fits; otherwise `None`.
        obstacle: Why no layout is valid; `None` if one is.
    """

    gpu: Gpu
    lengths: Lengths
    candidates: tuple[Candidate, ...]
    nearest: Candidate | None = None
    obstacle: str | None = None


def fit(
    recipe: Draft[Recipe] | Recipe, *, gpus: int, gpu: str | None = None, gpus_per_node: int = GPUS_OF_A_MACHINE
) -> list[Candidate]:
    """Return the layouts of a recipe that fit on some GPUs, fastest first.

    Args:
        recipe: What to train.
        gpus: Number of GPUs.
        gpu: Name of their type, such as `a100-80g`; `None` means h100-80g.
        gpus_per_node: GPUs of a machine; a smaller number of GPUs is on one machine.

    Raises:
        RecipeError: The GPUs do not make up whole machines, the type is unknown, or the recipe is not valid under
            any layout.
    """
    found = search_layouts(recipe, gpus=gpus, gpu=gpu, gpus_per_node=gpus_per_node)
    if found.obstacle is not None:
        raise RecipeError(found.obstacle)
    return list(found.candidates)


def search_layouts(
    recipe: Draft[Recipe] | Recipe, *, gpus: int, gpu: str | None = None, gpus_per_node: int = GPUS_OF_A_MACHINE
) -> Fit:
    """Return the layouts of a recipe that fit on some GPUs, or the one that is nearest to fitting.

    Tensor parallelism stays inside a machine and goes with sequence parallelism. Layers are divided evenly over the
    pipeline stages, and the layers of a stage over its virtual stages. Context parallelism is tried for long sequences
    only. The optimizer state is sharded. The global batch and everything else stay as they are.

    Args:
        recipe: What to train.
        gpus: Number of GPUs.
        gpu: Name of their type, such as `a100-80g`; `None` means h100-80g.
        gpus_per_node: GPUs of a machine; a smaller number of GPUs is on one machine.

    Raises:
        RecipeError: The GPUs do not make up whole machines, or the type is unknown.
    """
    built = recipe if isinstance(recipe, Recipe) else build(recipe)
    card, nodes = find_gpu(gpu), _whole_machines(gpus, gpus_per_node)
    if built.trainer.accelerator == "cpu":
        raise RecipeError("trainer.accelerator=cpu: trains on no GPU; set trainer.accelerator=auto")
    samples = sample_lengths(built)
    possible = list(_candidates(built, nodes, gpus // nodes, card, samples))
    fitting = [candidate for candidate in possible if candidate.peak <= card.memory_gib * GIB]
    fastest = _fastest_of_each_layout(fitting)
    nearest = min(possible, key=lambda candidate: candidate.peak) if possible and not fitting else None
    obstacle = None if possible else _obstacle(built, nodes, gpus // nodes, card)
    return Fit(card, lengths_of(built, samples), fastest, nearest, obstacle)


def fewest_gpus(recipe: Recipe, gpu: Gpu, *, at_least: int, gpus_per_node: int = GPUS_OF_A_MACHINE) -> int | None:
    """Return the fewest GPUs that hold a recipe under some layout; `None` if even the largest number tried does not.

    The search tries the number given, then powers of two: parts of a machine, then numbers of machines.

    Args:
        recipe: A valid recipe.
        gpu: Their type.
        at_least: The smallest number to try.
        gpus_per_node: GPUs of a machine.
    """
    powers = [1 << exponent for exponent in range(_MOST_GPUS.bit_length())]
    numbers = {at_least, *(power for power in powers if power < gpus_per_node), *(gpus_per_node * p for p in powers)}
    samples = sample_lengths(recipe)
    for number in sorted(number for number in numbers if at_least <= number <= max(at_least, _MOST_GPUS)):
        nodes = -(-number // gpus_per_node)
        if number % nodes:
            continue
        candidates = _candidates(recipe, nodes, number // nodes, gpu, samples)
        if any(candidate.peak <= gpu.memory_gib * GIB for candidate in candidates):
            return number
    return None


def _whole_machines(gpus: int, gpus_per_node: int) -> int:
    if gpus < 1 or gpus_per_node < 1:
        raise RecipeError(f"{gpus} GPUs, {gpus_per_node} to a machine: expected at least 1 of each")
    if gpus <= gpus_per_node:
        return 1
    if gpus % gpus_per_node:
        below = gpus // gpus_per_node * gpus_per_node
        raise RecipeError(
            f"{gpus} GPUs are not whole machines of {gpus_per_node}: take {below} or {below + gpus_per_node}"
        )
    return gpus // gpus_per_node


def _candidates(recipe: Recipe, nodes: int, devices: int, gpu: Gpu, samples: SampleLengths) -> Iterator[Candidate]:
    """Yield every layout without errors; of a layout that does not fit, only the smallest micro batch."""
    known: dict[tuple[int, int], Lengths] = {}
    for layout in _layouts(recipe, nodes, devices):
        for recompute in (NO_RECOMPUTE, {**NO_RECOMPUTE, **RECOMPUTE_EVERY_LAYER}):
            for micro_batch_size in _micro_batches(recipe, layout, nodes * devices):
                values = {**layout, **recompute, "data.micro_batch_size": micro_batch_size}
                overrides = {path: value for path, value in values.items() if field_value(recipe, path) != value}
                changed = with_values(recipe, overrides)
                if not is_valid(changed, gpu):
                    continue
                key = micro_batch_size, row_multiple(changed, on_gpu=True)
                if key not in known:
                    known[key] = lengths_of(changed, samples)
                divided = layout_of(changed)
                memory, cost = memory_of(changed, divided), cost_of(changed, divided, known[key], gpu)
                candidate = Candidate(overrides, changed, divided, memory, cost)
                yield candidate
                if candidate.peak > gpu.memory_gib * GIB:
                    break  # larger micro batches need more


def _layouts(recipe: Recipe, nodes: int, devices: int) -> Iterator[PlainTable]:
    """Yield the fields of every way to divide processes; not all are valid."""
    world, layers = nodes * devices, recipe.model.language.num_layers
    longest = max(1, recipe.data.sequence_length // _SHORTEST_PART)
    for context in (size for size in _divisors(world) if size <= longest):
        for tensor in _divisors(devices):
            for pipeline, pieces in _stages_and_pieces(layers):
                if world % (tensor * pipeline * context) == 0:
                    yield {
                        "trainer.num_nodes": nodes,
                        "trainer.devices": devices,
                        "parallel.tensor_model_parallel_size": tensor,
                        "parallel.sequence_parallel": tensor > 1,
                        "parallel.pipeline_model_parallel_size": pipeline,
                        "parallel.virtual_pipeline_model_parallel_size": pieces,
                        "parallel.num_layers_in_first_pipeline_stage": None,
                        "parallel.num_layers_in_last_pipeline_stage": None,
                        "parallel.context_parallel_size": context,
                        "parallel.use_distributed_optimizer": True,
                    }


def _stages_and_pieces(layers: int) -> Iterator[tuple[int, int | None]]:
    """Yield numbers of pipeline stages, each with none and with every number of virtual stages."""
    for stages in _divisors(layers):
        yield stages, None
        if stages > 1:
            yield from ((stages, pieces) for pieces in _divisors(layers // stages) if pieces > 1)


def _micro_batches(recipe: Recipe, layout: Mapping[str, Any], world: int) -> Iterator[int]:
    """Yield the micro batch sizes that divide the part of the global batch of a replica, smallest first."""
    sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
    replicas = world
    for size in sizes:
        replicas //= layout[f"parallel.{size}"]
    share, rest = divmod(recipe.data.global_batch_size, replicas)
    if not rest:
        yield from _divisors(share, _LARGEST_MICRO_BATCH)


def _divisors(number: int, largest: int = _MOST_PARTS) -> list[int]:
    """Return the divisors of a number up to the largest asked for; the limit guards against a user's huge number."""
    return [divisor for divisor in range(1, min(number, largest) + 1) if number % divisor == 0]


def _fastest_of_each_layout(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """Return one candidate for each set of parallel sizes and kind of recomputation, the fastest of all first.

    It is the fastest one, unless fewer virtual stages take hardly longer: each virtual stage sends more messages.
    """
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in candidates:
        parallel, recompute = candidate.recipe.parallel, candidate.recipe.model.recompute_granularity
        sizes = (parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size)
        groups.setdefault((*sizes, parallel.context_parallel_size, recompute), []).append(candidate)
    chosen = []
    for group in groups.values():
        limit = min(candidate.cost.step_seconds for candidate in group) * _NEXT_TO_NO_LONGER
        chosen.append(min((one for one in group if one.cost.step_seconds <= limit), key=_pieces_then_speed))
    return tuple(sorted(chosen, key=_speed))


def _pieces_then_speed(candidate: Candidate) -> tuple[float, ...]:
    return (candidate.recipe.parallel.virtual_pipeline_model_parallel_size or 1, *_speed(candidate))


def _speed(candidate: Candidate) -> tuple[float, float]:
    return candidate.cost.step_seconds, candidate.peak


def _obstacle(recipe: Recipe, nodes: int, devices: int, gpu: Gpu) -> str:
    """Return what is wrong with the plainest layout: data parallelism alone, one sample at a time."""
    values = {**next(_layouts(recipe, nodes, devices)), **NO_RECOMPUTE, "data.micro_batch_size": 1}
    errors = [finding for finding in check_recipe(with_values(recipe, values), gpu) if finding.severity == "error"]
    return errors[0].line()
