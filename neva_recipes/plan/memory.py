"""Bytes on a GPU of each pipeline stage."""

from collections.abc import Mapping
from dataclasses import dataclass

from neva_recipes.config import Recipe
from neva_recipes.plan._activations import language_activations, logits_activations, vision_activations
from neva_recipes.plan._sizes import element_bytes
from neva_recipes.plan.layout import Layout, Stage
from neva_recipes.plan.parameters import stage_linear_parameters, stage_parameters

__all__ = ["GIB", "StageMemory", "memory_of"]

GIB = 2**30
"""Bytes of one GiB."""

_FIXED_GIB, _FIXED_SHARE = 4.0, 0.06


@dataclass(frozen=True)
class StageMemory:
    """What one GPU of a pipeline stage holds at its fullest.

    Attributes:
        stage: Number of the stage.
        parameters: Weights on the GPU, padding included.
        trained: Those of them that training changes.
        bytes: Bytes by category, in this order: weights, gradients, optimizer, activations, logits, vision, fixed.
    """

    stage: int
    parameters: int
    trained: int
    bytes: Mapping[str, float]

    @property
    def total(self) -> float:
        """All bytes."""
        return sum(self.bytes.values())


def memory_of(recipe: Recipe, layout: Layout, *, row_length: float | None = None) -> tuple[StageMemory, ...]:
    """Return what a GPU of each pipeline stage holds.

    The categories:

    - weights: those of the language model, the tower and the projector that lie on the GPU; with FP8 the copies of the
      linear layers' weights that its products read.
    - gradients: Megatron's buffer over the trained weights.
    - optimizer: both moments and, with bf16, the master weights, in fp32, divided over the replicas by the distributed
      optimizer; the moving average of trainer.ema_decay, whole on every replica.
    - activations, logits, vision: what `neva_recipes.plan._activations` counts; vision without the tower's weights.
    - fixed: 4 GiB for the CUDA context, NCCL and workspaces, and 6 % of the rest for fragments: assumed, not measured.

    Args:
        recipe: A recipe without errors.
        layout: Its layout.
        row_length: Tokens of a row; none means data.sequence_length, the worst case.
    """
    length = row_length or recipe.data.sequence_length
    return tuple(_stage_memory(recipe, layout, stage, length) for stage in layout.stages)


def _stage_memory(recipe: Recipe, layout: Layout, stage: Stage, row_length: float) -> StageMemory:
    parts = stage_parameters(recipe, stage)
    parameters, trained = sum(part.total for part in parts), sum(part.trained for part in parts)
    categories = {
        "weights": _weights(recipe, stage, parameters),
        "gradients": _gradients(recipe, trained),
        "optimizer": _optimizer(recipe, layout, trained),
        "activations": language_activations(recipe, layout, stage, row_length),
        "logits": logits_activations(recipe, row_length) if stage.has_output else 0.0,
        "vision": vision_activations(recipe, layout, stage),
    }
    categories["fixed"] = _FIXED_GIB * GIB + _FIXED_SHARE * sum(categories.values())
    return StageMemory(stage.index, parameters, trained, categories)


def _weights(recipe: Recipe, stage: Stage, parameters: int) -> float:
    """Return the bytes of weights.

    FP8 products read a weight in one byte, and transposed in another one. With fp8_param these two take the place of
    the two bytes of bf16.
    """
    precision = recipe.precision
    copies = 2 * stage_linear_parameters(recipe, stage) if precision.fp8 and not precision.fp8_param else 0
    return float(parameters * element_bytes(recipe) + copies)


def _gradients(recipe: Recipe, trained: int) -> float:
    return float(trained * (4 if recipe.precision.grad_reduce_in_fp32 else element_bytes(recipe)))


def _optimizer(recipe: Recipe, layout: Layout, trained: int) -> float:
    shards = 1
    if recipe.parallel.use_distributed_optimizer:
        shards = layout.data_parallel_size * layout.context_parallel_size
    masters = 4 if recipe.precision.precision == "bf16" else 0
    average = 4 if recipe.trainer.ema_decay is not None else 0
    return trained * ((8 + masters) / shards + average)
