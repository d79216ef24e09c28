"""Seconds of one optimizer step, by cause: calculated from the data sheet of a GPU, not measured.

A step of m micro batches over p pipeline stages with v virtual stages each takes as long as m + (p - 1) / v micro
batches on the slowest stage, plus the reduction of gradients and the update of weights. Each term is a number of
operations divided by a share of the peak, or a number of bytes divided by a bandwidth. Communication that can overlap
counts as hidden only if the recipe asks for overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from neva_recipes.config import ModelConfig, Recipe
from neva_recipes.plan.cost.gpus import Gpu
from neva_recipes.plan.cost.kernels import kernel_seconds
from neva_recipes.plan.cost.layout import Layout
from neva_recipes.plan.cost.parameters import stage_parameters
from neva_recipes.plan.cost.sizes import Stage, element_bytes
from neva_recipes.plan.data.lengths import Lengths

__all__ = ["SPREAD", "step_seconds"]

SPREAD = 1.25
"""Factor by which a time may be shorter or longer than estimated: the worst published case is 20 % off
(docs/plan.md)."""

_GIGA = 1e9


@dataclass(frozen=True)
class _Case:
    """The input of every term."""

    recipe: Recipe
    layout: Layout
    lengths: Lengths
    gpu: Gpu

    @property
    def tokens(self) -> float:
        """Tokens of a micro batch on one rank."""
        return self.recipe.data.micro_batch_size * self.lengths.padded / self.layout.context_parallel_size

    @property
    def element(self) -> int:
        """Bytes of a weight or an activation."""
        return element_bytes(self.recipe)

    @property
    def gradient(self) -> int:
        """Bytes of a number in the gradient buffer."""
        return 4 if self.recipe.precision.grad_reduce_in_fp32 else self.element

    def bandwidth(self, group: int, stride: int) -> float:
        """Return the bytes per second that each rank of a group can send to its neighbour.

        If a group spans machines, its ranks on one machine send together through their network adapters.

        Args:
            group: Number of ranks.
            stride: Distance between the numbers of neighbouring ranks.
        """
        on_one_machine = max(1, self.layout.processes_per_node // stride)
        if group <= on_one_machine:
            return self.gpu.link * _GIGA
        return min(self.gpu.link, on_one_machine * self.gpu.network) * _GIGA


def step_seconds(recipe: Recipe, layout: Layout, lengths: Lengths, gpu: Gpu) -> Mapping[str, float]:
    """Return the seconds of one step on the slowest stage, by cause; their sum is the time of the step."""
    case = _Case(recipe, layout, lengths, gpu)
    stages = [_stage_seconds(case, stage) for stage in layout.stages]
    return max(stages, key=lambda seconds: sum(seconds.values()))


def _stage_seconds(case: _Case, stage: Stage) -> dict[str, float]:
    trained = sum(part.trained for part in stage_parameters(case.recipe, stage))
    of_microbatch = {
        **kernel_seconds(case.recipe, case.layout, case.lengths, case.gpu, stage),
        "gradient sums": trained * (case.element + 2 * case.gradient) / (case.gpu.bandwidth * _GIGA),
        "tensor parallel": _tensor_parallel(case, stage),
        "context parallel": _context_parallel(case, stage),
        "pipeline parallel": _pipeline_parallel(case, stage),
    }
    microbatch = sum(of_microbatch.values())
    return {
        **{cause: case.layout.num_microbatches * seconds for cause, seconds in of_microbatch.items()},
        "bubble": (case.layout.pipeline_model_parallel_size - 1) / len(stage.chunks) * microbatch,
        "data parallel": _data_parallel(case, trained, microbatch),
        "optimizer": _optimizer(case, trained),
    }


def _tensor_parallel(case: _Case, stage: Stage) -> float:
    """Return the seconds that a micro batch's all-reduces of hidden states take (arXiv 1909.08053, section 3).

    Each layer needs two in the forward pass, two in the backward pass, and the forward ones again if it is recomputed.
    Sequence parallelism sends the same number of bytes (arXiv 2205.05198, section 4.2.2).
    """
    size = case.layout.tensor_model_parallel_size
    model = case.recipe.model
    sent = 2 * (size - 1) / size * case.tokens * model.language.hidden_size * case.element
    return stage.num_layers * (4 + _recomputed_sums(model)) * sent / case.bandwidth(size, 1)


def _recomputed_sums(model: ModelConfig) -> int:
    if model.recompute_granularity == "full":
        return 2
    return int(model.recompute_granularity == "selective" and "mlp" in (model.recompute_modules or []))


def _context_parallel(case: _Case, stage: Stage) -> float:
    """Return the seconds to pass a micro batch's keys and values around all ranks, and their gradients back."""
    size, tensor = case.layout.context_parallel_size, case.layout.tensor_model_parallel_size
    language = case.recipe.model.language
    width = 2 * max(language.num_query_groups / tensor, 1) * language.head_size
    sent = 3 * (size - 1) * case.tokens * width * case.element
    return stage.num_layers * sent / case.bandwidth(size, tensor)


def _pipeline_parallel(case: _Case, stage: Stage) -> float:
    """Return the seconds to send a micro batch's hidden states to the next stage, and their gradients back."""
    layout = case.layout
    size = layout.pipeline_model_parallel_size
    if size == 1:
        return 0.0
    split = layout.tensor_model_parallel_size if case.recipe.parallel.sequence_parallel else 1
    sent = 2 * len(stage.chunks) * case.tokens * case.recipe.model.language.hidden_size * case.element / split
    return sent / case.bandwidth(size, layout.world_size // size)


def _data_parallel(case: _Case, trained: int, microbatch: float) -> float:
    """Return the seconds, not hidden, to reduce gradients and, with a sharded optimizer, to gather weights.

    With overlap, the backward pass of the last micro batch (two thirds of its time) hides the reduction, and the
    forward pass of the first one (one third) hides the gathering.
    """
    layout, parallel = case.layout, case.recipe.parallel
    size = layout.data_parallel_size * layout.context_parallel_size
    once = trained * (size - 1) / size / case.bandwidth(size, layout.tensor_model_parallel_size)
    reduce = once * case.gradient * (1 if parallel.use_distributed_optimizer else 2)
    gather = once * case.element if parallel.use_distributed_optimizer else 0.0
    if parallel.overlap_grad_reduce:
        reduce = max(0.0, reduce - microbatch * 2 / 3)
    if parallel.overlap_param_gather:
        gather = max(0.0, gather - microbatch / 3)
    return reduce + gather


def _optimizer(case: _Case, trained: int) -> float:
    """Return the seconds to read and write weights, both moments and gradients, and to clear the gradient buffer."""
    layout = case.layout
    shards = layout.data_parallel_size * layout.context_parallel_size
    own = trained / (shards if case.recipe.parallel.use_distributed_optimizer else 1)
    masters_and_moments = 2 * 3 * 4
    moved = own * (masters_and_moments + 2 * case.gradient + case.element) + trained * case.gradient
    return moved / (case.gpu.bandwidth * _GIGA)
