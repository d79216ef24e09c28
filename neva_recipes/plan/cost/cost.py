"""Operations, time and GPU hours of a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from neva_recipes.config import Recipe
from neva_recipes.plan.cost.flops import model_flops, recompute_flops, training_flops
from neva_recipes.plan.cost.gpus import Gpu
from neva_recipes.plan.cost.kernels import UTILISATION
from neva_recipes.plan.cost.layout import Layout
from neva_recipes.plan.cost.schedule import run_passes, run_steps
from neva_recipes.plan.cost.time import SPREAD, step_seconds
from neva_recipes.plan.data.lengths import Lengths

__all__ = ["Cost", "cost_of"]

_TERA = 1e12


@dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Attributes:
        sample_tflop: Operations for one sample, without recomputation, in TFLOP.
        sample_tflop_of: The same by component of the model.
        step_tflop: Operations of one optimizer step over all GPUs, with padding, without recomputation.
        recompute_tflop: Operations of one step that only recompute activations.
        padding: Share of padding in the tokens of a step.
        steps: Optimizer steps of the run; `None` if they depend on a file that is not here.
        passes: Passes over the samples in these steps; `None` if the number of samples is unknown.
        utilisation: Share of the GPU's peak that its matrix products in bf16 or fp32 are assumed to reach.
        step_seconds: Time of one step.
        step_seconds_range: The shortest and longest time of a step to expect, judged by published runs.
        step_seconds_of: Time of one step by cause, on the slowest pipeline stage.
        hours: Time of the run; `None` without `steps`.
        hours_range: The shortest and longest time of the run to expect.
        gpu_hours: Time of the run multiplied by the number of GPUs.
    """

    sample_tflop: float
    sample_tflop_of: Mapping[str, float]
    step_tflop: float
    recompute_tflop: float
    padding: float
    steps: int | None
    passes: float | None
    utilisation: float
    step_seconds: float
    step_seconds_range: tuple[float, float]
    step_seconds_of: Mapping[str, float]
    hours: float | None
    hours_range: tuple[float, float] | None
    gpu_hours: float | None


def cost_of(recipe: Recipe, layout: Layout, lengths: Lengths, gpu: Gpu) -> Cost:
    """Return the cost of a run on a type of GPU.

    Args:
        recipe: A recipe without errors.
        layout: Its layout.
        lengths: The lengths of its samples.
        gpu: The GPU.
    """
    batch = recipe.data.global_batch_size
    sample = model_flops(recipe.model, sequence_length=lengths.tokens, sequences=1, images=lengths.images)
    step = training_flops(recipe.model, sequence_length=lengths.padded, sequences=batch, images=batch * lengths.images)
    chunks = [len(chunk) for stage in layout.stages for chunk in stage.chunks]
    again = recompute_flops(recipe.model, sequence_length=lengths.padded, sequences=batch, chunks=chunks)
    seconds = step_seconds(recipe, layout, lengths, gpu)
    steps = run_steps(recipe, lengths.samples)
    hours = None if steps is None else steps * sum(seconds.values()) / 3600
    return Cost(
        sample_tflop=sum(component.training for component in sample) / _TERA,
        sample_tflop_of={component.component: component.training / _TERA for component in sample},
        step_tflop=step / _TERA,
        recompute_tflop=sum(again.values()) / _TERA,
        padding=lengths.padding,
        steps=steps,
        passes=run_passes(recipe, lengths.samples),
        utilisation=UTILISATION,
        step_seconds=sum(seconds.values()),
        step_seconds_range=_range(sum(seconds.values())),
        step_seconds_of=seconds,
        hours=hours,
        hours_range=None if hours is None else _range(hours),
        gpu_hours=None if hours is None else hours * layout.world_size,
    )


def _range(time: float) -> tuple[float, float]:
    return time / SPREAD, time * SPREAD
