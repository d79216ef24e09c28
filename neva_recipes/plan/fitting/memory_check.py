"""Whether a recipe fits on its GPUs, and what would make it fit."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from neva_recipes.config import Recipe, RecipeError, format_value
from neva_recipes.plan.checks import is_valid, with_values
from neva_recipes.plan.cost.gpus import GPUS, Gpu
from neva_recipes.plan.cost.layout import layout_of
from neva_recipes.plan.cost.memory import GIB, StageMemory, memory_of
from neva_recipes.plan.data.lengths import Lengths
from neva_recipes.plan.findings import Finding, Remedy, error, warning
from neva_recipes.plan.fitting.adapters import with_adapters

__all__ = ["NO_RECOMPUTE", "RECOMPUTE_EVERY_LAYER", "check_memory", "judged_gpu"]

_COMFORTABLE = 0.8
"""Share of a GPU's memory up to which the estimate is trusted to hold without recomputation."""

RECOMPUTE_EVERY_LAYER: Remedy = {
    "model.recompute_granularity": "full",
    "model.recompute_method": "uniform",
    "model.recompute_num_layers": 1,
}
"""Keeps one hidden state for each layer."""
NO_RECOMPUTE: Remedy = {
    "model.recompute_granularity": None,
    "model.recompute_method": None,
    "model.recompute_num_layers": None,
    "model.recompute_modules": None,
}
"""Keeps all activations."""
_REMEDIES = 3


def check_memory(
    recipe: Recipe,
    memory: Sequence[StageMemory],
    lengths: Lengths,
    gpu: Gpu,
    smaller: Gpu | None = None,
    *,
    assumed: bool,
) -> list[Finding]:
    """Return what is wrong with the memory that a recipe takes.

    A recipe gets an error if the GPU is known, the lowest estimate does not fit, and some sample fills its row or rows
    of mean length do not fit either: otherwise it may never happen. It gets a warning if it is expected not to fit, or
    if it fits on the GPU but not on the smaller GPU that may be meant.

    Args:
        recipe: A recipe without errors of its own.
        memory: What `memory_of` returns for it, with every row at its maximum length.
        lengths: The lengths of its rows.
        gpu: The GPU it will run on.
        smaller: The smallest GPU that the name may stand for; `None` if the name stands for one GPU.
        assumed: Whether the GPU is assumed, and not named by the user.
    """
    judged = judged_gpu(memory, gpu, smaller)
    unsure = "the smaller " if judged is not gpu else "the assumed " if assumed else ""
    return _check(recipe, memory, lengths, judged, unsure)


def judged_gpu(memory: Sequence[StageMemory], gpu: Gpu, smaller: Gpu | None) -> Gpu:
    """Return the GPU that findings on memory are about: the smaller one only if every stage fits on the larger one.

    Args:
        memory: The memory of each stage.
        gpu: The GPU that the recipe will run on.
        smaller: The smallest GPU that the name may stand for; `None` if the name stands for one GPU.
    """
    fits = all(stage.total <= gpu.memory_gib * GIB for stage in memory)
    return smaller if smaller is not None and fits else gpu


def _check(recipe: Recipe, memory: Sequence[StageMemory], lengths: Lengths, gpu: Gpu, unsure: str) -> list[Finding]:
    """Return what is wrong with the memory on a GPU; no errors if `unsure` says why it may be another GPU."""
    fullest = max(memory, key=lambda stage: stage.total)
    if fullest.total > gpu.memory_gib * GIB:
        row = recipe.data.sequence_length if lengths.truncated else lengths.padded
        usual = memory_of(recipe, layout_of(recipe), row_length=row)
        return [_too_much(recipe, fullest, usual, gpu, unsure)]
    if recipe.model.recompute_granularity is not None:
        kept = _largest(recipe, NO_RECOMPUTE)
        if kept is not None and kept <= _COMFORTABLE * gpu.memory_gib * GIB:
            return [_unneeded(recipe, kept, gpu)]
    return []


def _too_much(recipe: Recipe, stage: StageMemory, usual: Sequence[StageMemory], gpu: Gpu, unsure: str) -> Finding:
    largest = sorted(stage.bytes.items(), key=lambda category: -category[1])[:3]
    where = f"a GPU of stage {stage.stage}" if recipe.parallel.pipeline_model_parallel_size > 1 else "a GPU"
    at_times = max(each.total for each in usual) <= gpu.memory_gib * GIB
    may_fit = max(each.least for each in usual) <= gpu.memory_gib * GIB
    message = (
        f"{where} needs {stage.least / GIB:.1f} to {stage.total / GIB:.1f} GiB"
        f"{' where rows are that long' if at_times else ''} "
        f"({', '.join(f'{name} {size / GIB:.1f}' for name, size in largest)}), and "
        f"{unsure}{gpu.name} has {gpu.memory_gib:.1f}"
    )
    report = warning if unsure or may_fit else error
    return report(
        "memory",
        message,
        recipe,
        "data.micro_batch_size",
        "data.sequence_length",
        remedies=_what_fits(recipe, gpu),
        advice="; ".join(filter(None, [_larger_gpus(stage, gpu), _adapters(recipe, gpu)])),
    )


def _unneeded(recipe: Recipe, kept: float, gpu: Gpu) -> Finding:
    remedy = {path: None for path in NO_RECOMPUTE if _value(recipe, path) is not None}
    return warning(
        "recompute-unneeded",
        f"activations are recomputed, which costs time, though all of them fit: {kept / GIB:.1f} of the "
        f"{gpu.memory_gib:.1f} GiB of {gpu.name}",
        recipe,
        "model.recompute_granularity",
        remedies=[remedy],
    )


def _value(recipe: Recipe, path: str) -> object:
    return getattr(recipe.model, path.removeprefix("model."))


def _larger_gpus(stage: StageMemory, gpu: Gpu) -> str:
    larger = [other for other in GPUS.values() if other.memory_gib > gpu.memory_gib]
    enough = min((o for o in larger if o.memory_gib * GIB >= stage.total), key=lambda o: o.memory_gib, default=None)
    return f"take a GPU as large as {enough.name}" if enough is not None else ""


def _adapters(recipe: Recipe, gpu: Gpu) -> str:
    """Return which adapters would fit, with smaller micro batches if need be; empty if none would."""
    for adapters in with_adapters(recipe):
        for smaller in ({}, *_smaller_batches(recipe)):
            change = {**adapters, **smaller}
            if _fits(recipe, change, gpu):
                words = " ".join(f"{path}={format_value(value)}" for path, value in change.items())
                return f"adapters beside fixed weights fit: {words}"
    return ""


def _what_fits(recipe: Recipe, gpu: Gpu) -> list[Remedy]:
    """Return the nearest changes with which the recipe fits: single changes before pairs and triples.

    The smallest change of each kind that suffices is named. A set that contains one already named is left out.
    """
    kinds = (_recomputing(recipe), _sharding(recipe), _smaller_batches(recipe), _more_tensor_parallel(recipe))
    found: list[Remedy] = []
    for size in range(1, len(kinds) + 1):
        for chosen in combinations(kinds, size):
            remedy = next((each for each in _together(chosen) if _fits(recipe, each, gpu)), None)
            if remedy is not None and not any(known.keys() <= remedy.keys() for known in found):
                found.append(remedy)
        if len(found) >= _REMEDIES:
            break
    return found[:_REMEDIES]


def _together(kinds: Sequence[Sequence[Remedy]]) -> Iterator[Remedy]:
    """Yield every choice of one change of each kind, the last kinds varying fastest from small changes to large."""
    if not kinds:
        yield {}
        return
    for change in kinds[0]:
        for rest in _together(kinds[1:]):
            yield {**change, **rest}


def _recomputing(recipe: Recipe) -> list[Remedy]:
    model = recipe.model
    if (model.recompute_granularity, model.recompute_method, model.recompute_num_layers) == ("full", "uniform", 1):
        return []
    modules: Remedy = {"model.recompute_modules": None} if model.recompute_modules else {}
    return [{**RECOMPUTE_EVERY_LAYER, **modules}]


def _sharding(recipe: Recipe) -> list[Remedy]:
    parallel = recipe.parallel
    return [] if parallel.use_distributed_optimizer else [{"parallel.use_distributed_optimizer": True}]


def _smaller_batches(recipe: Recipe) -> list[Remedy]:
    micro = recipe.data.micro_batch_size
    return [{"data.micro_batch_size": size} for size in range(micro - 1, 0, -1) if micro % size == 0]


def _more_tensor_parallel(recipe: Recipe) -> list[Remedy]:
    """Return larger tensor-parallel sizes within one machine, with sequence parallelism on."""
    parallel, devices = recipe.parallel, recipe.trainer.devices or 0
    with_sequence: Remedy = {} if parallel.sequence_parallel else {"parallel.sequence_parallel": True}
    size, changes = parallel.tensor_model_parallel_size * 2, list[Remedy]()
    while size <= devices:
        changes.append({"parallel.tensor_model_parallel_size": size, **with_sequence})
        size *= 2
    return changes


def _fits(recipe: Recipe, change: Remedy, gpu: Gpu) -> bool:
    largest = _largest(recipe, change)
    return largest is not None and largest <= gpu.memory_gib * GIB


def _largest(recipe: Recipe, change: Remedy) -> float | None:
    """Return the bytes of the fullest stage of a changed recipe; `None` if the change breaks a rule."""
    try:
        changed = with_values(recipe, change)
    except RecipeError:
        return None
    if not is_valid(changed):
        return None
    return max(stage.total for stage in memory_of(changed, layout_of(changed)))
