"""The waste in a recipe that only its data or its memory shows."""

from collections.abc import Iterator
from dataclasses import replace

from neva_recipes.config import LlavaDataConfig, Recipe, RecipeError
from neva_recipes.plan.checks import is_valid, with_values
from neva_recipes.plan.cost.cost import cost_of
from neva_recipes.plan.cost.gpus import Gpu
from neva_recipes.plan.cost.layout import layout_of
from neva_recipes.plan.cost.memory import GIB, memory_of
from neva_recipes.plan.data.lengths import Lengths, SampleLengths, lengths_of
from neva_recipes.plan.findings import Finding, Remedy, warning

__all__ = ["check_waste"]

_PADDING = 0.25
"""Share of padding in the rows of micro batches up to which there is no warning."""

_COMFORTABLE = 0.8
"""Share of a GPU's memory up to which the estimate is trusted."""

_GROUPING = "data.group_by_modality_length"
_MICRO = "data.micro_batch_size"
_TENSOR = "parallel.tensor_model_parallel_size"
_SEQUENCE = "parallel.sequence_parallel"


def check_waste(recipe: Recipe, samples: SampleLengths, lengths: Lengths, gpu: Gpu) -> list[Finding]:
    """Return what a recipe wastes.

    Args:
        recipe: A recipe without errors of its own.
        samples: The lengths of some samples of its data.
        lengths: The lengths of its rows, made of these samples.
        gpu: The GPU it will run on.
    """
    return [*_padding(recipe, samples, lengths), *_tensor_parallel(recipe, samples, lengths, gpu)]


def _padding(recipe: Recipe, samples: SampleLengths, lengths: Lengths) -> Iterator[Finding]:
    """The rows of a micro batch have similar lengths."""
    data = recipe.data
    share = lengths.padding
    if not samples.measured or not isinstance(data, LlavaDataConfig) or share <= _PADDING:
        return
    ways: tuple[list[Remedy], ...] = (
        [{_GROUPING: True}, {_GROUPING: True, "data.dataloader_type": "cyclic"}],
        [{_MICRO: size} for size in range(data.micro_batch_size - 1, 0, -1)],
    )
    remedies = [next((each for each in way if _pads_less(recipe, each, samples)), None) for way in ways]
    yield warning(
        "padding",
        f"{share:.0%} of the tokens of a step are padding: samples of a microbatch are of different lengths",
        recipe,
        _MICRO,
        _GROUPING,
        remedies=[remedy for remedy in remedies if remedy is not None],
    )


def _pads_less(recipe: Recipe, change: Remedy, samples: SampleLengths) -> bool:
    changed = _changed(recipe, change)
    return changed is not None and lengths_of(changed, samples).padding <= _PADDING


def _tensor_parallel(recipe: Recipe, samples: SampleLengths, lengths: Lengths, gpu: Gpu) -> Iterator[Finding]:
    """Layers are split over no more GPUs than they need, unless more GPUs are faster.

    More are faster with a small global batch: fewer replicas have more micro batches each, and the pipeline idles less.
    """
    tensor = recipe.parallel.tensor_model_parallel_size
    if recipe.trainer.devices is None or recipe.trainer.accelerator == "cpu":
        return  # without a number of devices, the size of the model determines it
    for size in range(1, tensor):
        change = {_TENSOR: size} | ({_SEQUENCE: False} if size == 1 and recipe.parallel.sequence_parallel else {})
        changed = _changed(recipe, change)
        if changed is None:
            continue
        largest = max(stage.total for stage in memory_of(changed, layout_of(changed))) / GIB
        fits = largest <= _COMFORTABLE * gpu.memory_gib
        if fits and _seconds(changed, lengths_of(changed, samples), gpu) < _seconds(recipe, lengths, gpu):
            unneeded = warning(
                "tensor-parallel-unneeded",
                f"{tensor} GPUs share every layer and wait for each other in it, though {size} can hold it: "
                f"{largest:.1f} of the {gpu.memory_gib:.1f} GiB of {gpu.name}",
                recipe,
                _TENSOR,
                remedies=[change],
            )
            yield replace(unneeded, about="memory")
            return


def _seconds(recipe: Recipe, lengths: Lengths, gpu: Gpu) -> float:
    return cost_of(recipe, layout_of(recipe), lengths, gpu).step_seconds


def _changed(recipe: Recipe, change: Remedy) -> Recipe | None:
    """Return a changed recipe; `None` if the change breaks a rule."""
    try:
        changed = with_values(recipe, change)
    except RecipeError:
        return None
    return changed if is_valid(changed) else None
