"""Operations, time and GPU hours of a run."""

from dataclasses import dataclass

from neva_recipes.config import Recipe
from neva_recipes.plan.gpus import Gpu
from neva_recipes.plan.layout import Layout
from neva_recipes.plan.lengths import Lengths

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        sample_tflop: Operations one sample needs, recomputation not counted, in TFLOP.
        step_tflop: Operations of one optimizer step over all GPUs, padding included, recomputation not counted.
        recompute_tflop: Operations of one step that only recompute activations.
        padding: Share of the tokens of a step that carry no work.
        steps: Optimizer steps of the run; none where that depends on a file that is not there.
        utilisation: Share of the GPU's peak that a GPU is assumed to reach while it works.
        step_seconds: Time of one step.
        hours: Time of the run; none without `steps`.
        gpu_hours: That times the number of GPUs.
    """

    sample_tflop: float
    step_tflop: float
    recompute_tflop: float
    padding: float
    steps: int | None
    utilisation: float
    step_seconds: float
    hours: float | None
    gpu_hours: float | None


def cost_of(recipe: Recipe, layout: Layout, lengths: Lengths, gpu: Gpu) -> Cost:
    """Return what a run costs on GPUs of a type."""
    return Cost(0.0, 0.0, 0.0, 0.0, recipe.trainer.max_steps, 0.4, 0.0, None, None)
