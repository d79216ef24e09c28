"""Layouts of a recipe that fit on some GPUs, fastest first."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fiddle as fdl

from neva_recipes.config import Recipe, RecipeError, build
from neva_recipes.plan.checks import check_recipe, is_valid, with_values
from neva_recipes.plan.cost import Cost, cost_of
from neva_recipes.plan.findings import field_value
from neva_recipes.plan.gpus import Gpu, find_gpu
from neva_recipes.plan.layout import Layout, layout_of
from neva_recipes.plan.lengths import Lengths, SampleLengths, lengths_of, sample_lengths
from neva_recipes.plan.memory import GIB, StageMemory, memory_of
from neva_recipes.plan.memory_check import NO_RECOMPUTE, RECOMPUTE_EVERY_LAYER
from neva_recipes.plan.rows import row_multiple

__all__ = ["Candidate", "Fit", "fit", "search_layouts"]

_LARGEST_MICRO_BATCH = 64
_SHORTEST_PART = 4096
"""Tokens of a sequence that each context-parallel GPU must at least get; with fewer it costs more than it saves."""

_NEXT_TO_NO_LONGER = 1.02
"""How much longer a step may take with fewer virtual stages, whose messages cost more than their bytes."""


@dataclass(frozen=True)
class Candidate:
    """One way of laying a recipe out.

    Attributes:
        overrides: Fields to set in the recipe, by dotted path; those that already hold their value are not among them.
        recipe: The recipe with these fields set.
        layout: How its processes, layers and batch are divided.
        memory: Bytes on a GPU of each pipeline stage, every row as long as it may be.
        cost: Operations, time and GPU hours.
    """

    overrides: Mapping[str, Any]
    recipe: Recipe
    layout: Layout
    memory: tuple[StageMemory, ...]
    cost: Cost

    @property
    def peak(self) -> float:
        """Bytes on the GPU that holds most."""
        return max(stage.total for stage in self.memory)


@dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
        gpu: The type of GPU.
        lengths: How long samples are taken to be, and how that is known, in the recipe as it is.
        candidates: What fits, fastest first; of every tensor-, pipeline- and context-parallel size, with and without
            recomputation, the fastest micro batch and the number of virtual stages that goes with it.
        nearest: What fits least badly where nothing fits; none where something does, or no layout is possible at all.
        obstacle: Why no layout is possible at all; none where one is.
    """

    gpu: Gpu
    lengths: Lengths
    candidates: tuple[Candidate, ...]
    nearest: Candidate | None = None
    obstacle: str | None = None


def fit(
    recipe: fdl.Buildable[Recipe] | Recipe, *, gpus: int, gpu: str | None = None, gpus_per_node: int = 8
) -> list[Candidate]:
    """Return the layouts of a recipe that fit on some GPUs, fastest first.

    Args:
        recipe: What to train.
        gpus: Number of GPUs.
        gpu: Name of their type, such as `a100-80g`; none means h100-80g.
        gpus_per_node: GPUs of a machine; fewer GPUs than that are on one machine.

    Raises:
        RecipeError: The GPUs do not make up whole machines, there is no such type, or the recipe is not valid under
            any layout.
    """
    found = search_layouts(recipe, gpus=gpus, gpu=gpu, gpus_per_node=gpus_per_node)
    if found.obstacle is not None:
        raise RecipeError(found.obstacle)
    return list(found.candidates)


def search_layouts(
    recipe: fdl.Buildable[Recipe] | Recipe, *, gpus: int, gpu: str | None = None, gpus_per_node: int = 8
) -> Fit:
    """Return the layouts of a recipe that fit on some GPUs, or what is nearest to fitting.

    Tensor parallelism stays inside of a machine and goes with sequence parallelism. Layers are divided evenly over the
    pipeline stages, and those of a stage over its virtual stages. Context parallelism is tried for long sequences only.
    The optimizer state is sharded. The global batch and everything else stay as they are.

    Args:
        recipe: What to train.
        gpus: Number of GPUs.
        gpu: Name of their type, such as `a100-80g`; none means h100-80g.
        gpus_per_node: GPUs of a machine; fewer GPUs than that are on one machine.

    Raises:
        RecipeError: The GPUs do not make up whole machines, or there is no such type.
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
    """Yield every layout without errors; of those that do not fit only the smallest micro batch."""
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
                    break  # larger microbatches need more


def _layouts(recipe: Recipe, nodes: int, devices: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of every way to divide processes; not every one is valid."""
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
    """Yield the sizes of microbatch that divide what a replica takes of the global batch, small ones first."""
    sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
    replicas = world
    for size in sizes:
        replicas //= layout[f"parallel.{size}"]
    share, rest = divmod(recipe.data.global_batch_size, replicas)
    if not rest:
        yield from (size for size in _divisors(share) if size <= _LARGEST_MICRO_BATCH)


def _divisors(number: int) -> list[int]:
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})


def _fastest_of_each_layout(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """Return one candidate of each set of sizes and kind of recomputation, the fastest of all first.

    It is the fastest one, unless fewer virtual stages take next to no longer: each of them sends more messages.
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
