"""Bytes on a GPU of each pipeline stage."""

from collections.abc import Mapping
from dataclasses import dataclass

from neva_recipes.config import Recipe
from neva_recipes.plan.cost.activations import language_activations, logits_activations, vision_activations
from neva_recipes.plan.cost.layout import Layout
from neva_recipes.plan.cost.parameters import layer_linear_parameters, stage_linear_parameters, stage_parameters
from neva_recipes.plan.cost.sizes import Stage, element_bytes

__all__ = ["GIB", "STATE", "StageMemory", "memory_of"]

STATE = ("weights", "gradients", "optimizer")
"""Categories that are the same on a CPU; its kernels keep other activations than those of a GPU."""

GIB = 2**30
"""Bytes of one GiB."""

_NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: half a byte, a byte for the scale of 64, four for the scale of 256 of these scales."""

_FIXED_GIB, _FIXED_SHARE = 4.0, 0.06
_LEAST_FIXED_GIB = 1.5
"""The least fixed memory: about half a GiB each for the CUDA context, NCCL's buffers and the products' workspaces."""


@dataclass(frozen=True)
class StageMemory:
    """The most memory that one GPU of a pipeline stage holds.

    Attributes:
        stage: Number of the stage.
        parameters: Weights on the GPU, with padding.
        trained: Number of them that are trained.
        bytes: Bytes by category, in this order: weights, gradients, optimizer, activations, logits, vision, fixed.
        least: All bytes in the best case: no fragments, 1.5 GiB fixed, and the update's fp32 gradients in the memory
            that the activations have freed.
    """

    stage: int
    parameters: int
    trained: int
    bytes: Mapping[str, float]
    least: float

    @property
    def total(self) -> float:
        """All bytes expected."""
        return sum(self.bytes.values())

    @property
    def state(self) -> float:
        """Bytes that stay from step to step, on any device: weights, gradients, optimizer."""
        return sum(self.bytes[name] for name in STATE)


def memory_of(recipe: Recipe, layout: Layout, *, row_length: float | None = None) -> tuple[StageMemory, ...]:
    """Return the memory of a GPU of each pipeline stage.

    The categories:

    - weights: the weights of the language model, the tower and the projector on the GPU; with FP8 also the copies of
      the linear layers' weights that its products read.
    - gradients: Megatron's buffer for the trained weights; if it is in bf16, also the fp32 copies that the optimizer
      makes of its own part for an update, which are freed before the next step.
    - optimizer: both moments and, with bf16, the master weights, in fp32, divided over the replicas by the distributed
      optimizer; the moving average of trainer.ema_decay, whole on every replica.
    - activations, logits, vision: what `neva_recipes.plan.cost.activations` counts; vision without the tower's weights.
    - fixed: 4 GiB for the CUDA context, NCCL and workspaces, and 6 % of the rest for fragments: assumed, not measured.

    All layouts for which NVIDIA has published times fit on their GPUs at `least` (docs/plan.md).

    Args:
        recipe: A recipe without errors.
        layout: Its layout.
        row_length: Tokens of a row; `None` means data.sequence_length, the worst case.
    """
    length = row_length or recipe.data.sequence_length
    return tuple(_stage_memory(recipe, layout, stage, length) for stage in layout.stages)


def _stage_memory(recipe: Recipe, layout: Layout, stage: Stage, row_length: float) -> StageMemory:
    parts = stage_parameters(recipe, stage)
    parameters, trained = sum(part.total for part in parts), sum(part.trained for part in parts)
    categories = {
        "weights": _weights(recipe, stage, parameters),
        "gradients": _gradients(recipe, trained) + (copies := _gradient_copies(recipe, layout, trained)),
        "optimizer": _optimizer(recipe, layout, trained),
        "activations": language_activations(recipe, layout, stage, row_length),
        "logits": logits_activations(recipe, row_length) if stage.has_output else 0.0,
        "vision": vision_activations(recipe, layout, stage),
    }
    counted = sum(categories.values())
    passing = sum(categories[name] for name in ("activations", "logits", "vision"))
    least = _LEAST_FIXED_GIB * GIB + counted - min(copies, passing)
    categories["fixed"] = _FIXED_GIB * GIB + _FIXED_SHARE * counted
    return StageMemory(stage.index, parameters, trained, categories, least)


def _weights(recipe: Recipe, stage: Stage, parameters: int) -> float:
    """Return the bytes of weights.

    FP8 products read a weight in one byte, and in another byte transposed. With fp8_param these two bytes replace the
    two bytes of bf16.
    """
    precision = recipe.precision
    if recipe.model.language.quantize is not None:
        linear = stage.num_layers * layer_linear_parameters(recipe.model.language)
        linear //= recipe.parallel.tensor_model_parallel_size
        return (parameters - linear) * element_bytes(recipe) + linear * _NF4_BYTES
    copies = 2 * stage_linear_parameters(recipe, stage) if precision.fp8 and not precision.fp8_param else 0
    return float(parameters * element_bytes(recipe) + copies)


def _gradients(recipe: Recipe, trained: int) -> float:
    return float(trained * (4 if recipe.precision.grad_reduce_in_fp32 else element_bytes(recipe)))


def _gradient_copies(recipe: Recipe, layout: Layout, trained: int) -> float:
    """Return the bytes of the fp32 gradients that update the master weights, if the buffer is in bf16.

    Megatron-Core makes them in `_copy_model_grads_to_main_grads` of both of its mixed-precision optimizers with
    `.float()`, which copies nothing if the buffer is in fp32. The distributed optimizer copies its own shard.
    """
    if recipe.precision.grad_reduce_in_fp32 or recipe.precision.precision == "fp32":
        return 0.0
    return 4.0 * trained / _optimizer_shards(recipe, layout)


def _optimizer_shards(recipe: Recipe, layout: Layout) -> int:
    is_sharded = recipe.parallel.use_distributed_optimizer
    return layout.data_parallel_size * layout.context_parallel_size if is_sharded else 1


def _optimizer(recipe: Recipe, layout: Layout, trained: int) -> float:
    shards = _optimizer_shards(recipe, layout)
    masters = 4 if recipe.precision.precision == "bf16" else 0
    average = 4 if recipe.trainer.ema_decay is not None else 0
    return trained * ((8 + masters) / shards + average)
