"""Operations, time and GPU hours of a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from neva_recipes.config import Recipe
from neva_recipes.plan._time import UTILISATION, step_seconds
from neva_recipes.plan.flops import model_flops, recompute_flops, training_flops
from neva_recipes.plan.gpus import Gpu
from neva_recipes.plan.layout import Layout
from neva_recipes.plan.lengths import Lengths

__all__ = ["Cost", "cost_of"]

_TERA = 1e12


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        sample_tflop: Operations one sample needs, recomputation not counted, in TFLOP.
        sample_tflop_of: The same by component of the model.
        step_tflop: Operations of one optimizer step over all GPUs, padding included, recomputation not counted.
        recompute_tflop: Operations of one step that only recompute activations.
        padding: Share of the tokens of a step that carry no work.
        steps: Optimizer steps of the run; none where that depends on a file that is not there.
        utilisation: Share of the GPU's peak that a GPU is assumed to reach while it works.
        step_seconds: Time of one step.
        step_seconds_of: The same by cause, on the slowest pipeline stage.
        hours: Time of the run; none without `steps`.
        gpu_hours: That times the number of GPUs.
    """

    sample_tflop: float
    sample_tflop_of: Mapping[str, float]
    step_tflop: float
    recompute_tflop: float
    padding: float
    steps: int | None
    utilisation: float
    step_seconds: float
    step_seconds_of: Mapping[str, float]
    hours: float | None
    gpu_hours: float | None


def cost_of(recipe: Recipe, layout: Layout, lengths: Lengths, gpu: Gpu) -> Cost:
    """Return what a run costs on GPUs of a type.

    Args:
        recipe: A recipe without errors.
        layout: Its layout.
        lengths: How long its samples are.
        gpu: The GPU.
    """
    batch = recipe.data.global_batch_size
    sample = model_flops(recipe.model, sequence_length=lengths.tokens, sequences=1, images=lengths.images)
    step = training_flops(recipe.model, sequence_length=lengths.padded, sequences=batch, images=batch * lengths.images)
    chunks = [len(chunk) for stage in layout.stages for chunk in stage.chunks]
    again = recompute_flops(recipe.model, sequence_length=lengths.padded, sequences=batch, chunks=chunks)
    seconds = step_seconds(recipe, layout, lengths, gpu)
    steps = _steps(recipe, lengths)
    hours = None if steps is None else steps * sum(seconds.values()) / 3600
    return Cost(
        sample_tflop=sum(component.training for component in sample) / _TERA,
        sample_tflop_of={component.component: component.training / _TERA for component in sample},
        step_tflop=step / _TERA,
        recompute_tflop=again / _TERA,
        padding=1 - lengths.tokens / lengths.padded,
        steps=steps,
        utilisation=UTILISATION,
        step_seconds=sum(seconds.values()),
        step_seconds_of=seconds,
        hours=hours,
        gpu_hours=None if hours is None else hours * layout.world_size,
    )


def _steps(recipe: Recipe, lengths: Lengths) -> int | None:
    """Return the steps of the run; `max_epochs` counts passes over the file."""
    if recipe.trainer.max_steps is not None:
        return recipe.trainer.max_steps
    if lengths.samples is None:
        return None
    return math.ceil((recipe.trainer.max_epochs or 1) * lengths.samples / recipe.data.global_batch_size)
