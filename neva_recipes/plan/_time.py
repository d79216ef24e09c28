"""Seconds of one optimizer step, by what takes them: arithmetic over the data sheet of a GPU, not a measurement.

A step of m microbatches over p pipeline stages of v pieces lasts as long as m + (p - 1) / v microbatches on the slowest
stage, then gradients are reduced and weights updated. Each of these is a number of operations over a share of the peak,
or a number of bytes over a bandwidth; what can overlap is taken as hidden only where the recipe asks for overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from neva_recipes.config import ModelConfig, Recipe
from neva_recipes.plan._sizes import element_bytes
from neva_recipes.plan.flops import model_flops, recompute_flops
from neva_recipes.plan.gpus import Gpu
from neva_recipes.plan.layout import Layout, Stage
from neva_recipes.plan.lengths import Lengths
from neva_recipes.plan.parameters import layer_linear_parameters, stage_linear_parameters, stage_parameters

__all__ = ["FP8_UTILISATION", "UTILISATION", "step_seconds"]

UTILISATION = 0.45
"""Share of the peak that matrix products, and all that is computed between them, are assumed to reach.

In the middle of what four published times of LLaVA-1.5 on eight A100 give: 0.40 to 0.54 (docs/plan.md).
"""

FP8_UTILISATION = 0.3
"""The same share of the FP8 peak, for the linear layers in FP8: they then take two thirds of their time in bf16."""

_GIGA, _TERA = 1e9, 1e12


@dataclass(frozen=True)
class _Case:
    """What every term is a function of."""

    recipe: Recipe
    layout: Layout
    lengths: Lengths
    gpu: Gpu

    @property
    def tokens(self) -> float:
        """Tokens of a microbatch on one rank."""
        return self.recipe.data.micro_batch_size * self.lengths.padded / self.layout.context_parallel_size

    @property
    def element(self) -> int:
        """Bytes of a weight or an activation."""
        return element_bytes(self.recipe)

    @property
    def gradient(self) -> int:
        """Bytes of a number of the gradient buffer."""
        return 4 if self.recipe.precision.grad_reduce_in_fp32 else self.element

    def bandwidth(self, group: int, stride: int) -> float:
        """Return the bytes per second at which each rank of a group sends to its neighbour.

        Where a group spans machines, all of its ranks on one machine send through their network adapters together.

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
        "matrix products": _products(case, stage),
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


def _products(case: _Case, stage: Stage) -> float:
    """Return the seconds of a microbatch's matrix products, recomputed ones included."""
    recipe, layout, model = case.recipe, case.layout, case.recipe.model
    rows, length = recipe.data.micro_batch_size, case.lengths.padded
    # The images of a microbatch are divided over the tensor-parallel ranks, each of which has the whole projector.
    images = rows * case.lengths.images
    share = -(-images // layout.tensor_model_parallel_size)
    flops = {
        part.component: part.training
        for part in model_flops(model, sequence_length=length, sequences=rows, images=images)
    }
    again = recompute_flops(
        model, sequence_length=length, sequences=rows, chunks=[len(chunk) for chunk in stage.chunks]
    )
    split = layout.tensor_model_parallel_size * layout.context_parallel_size
    held = stage.num_layers / model.language.num_layers
    if model.recompute_granularity == "selective":
        again *= held
    in_fp8 = _share_in_fp8(recipe, stage) * flops["linear layers"] * held / split
    other = ((flops["linear layers"] + flops["attention"]) * held + again) / split - in_fp8
    if stage.has_output:
        other += flops["logits"] / split
    if stage.has_embedding and model.vision is not None and images:
        other += flops["vision"] / images * share + flops["projector"]
    peak = case.gpu.bf16_tflops if recipe.precision.precision == "bf16" else case.gpu.fp32_tflops
    seconds = other / (peak * UTILISATION * _TERA)
    if in_fp8 and case.gpu.fp8_tflops is not None:
        seconds += in_fp8 / (case.gpu.fp8_tflops * FP8_UTILISATION * _TERA)
    return seconds


def _share_in_fp8(recipe: Recipe, stage: Stage) -> float:
    if recipe.precision.fp8 is None:
        return 0.0
    linear = stage.num_layers * layer_linear_parameters(recipe.model.language)
    return stage_linear_parameters(recipe, stage) * recipe.parallel.tensor_model_parallel_size / linear


def _tensor_parallel(case: _Case, stage: Stage) -> float:
    """Return the seconds of a microbatch's all-reduces of hidden states (arXiv 1909.08053, section 3).

    Each layer needs two in the forward pass, two in the backward pass, and those of the forward pass again where it is
    recomputed. Sequence parallelism sends the same bytes (arXiv 2205.05198, section 4.2.2).
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
    """Return the seconds of a microbatch's keys and values on their way past all ranks, and of their gradients back."""
    size, tensor = case.layout.context_parallel_size, case.layout.tensor_model_parallel_size
    language = case.recipe.model.language
    width = 2 * max(language.num_query_groups / tensor, 1) * language.head_size
    sent = 3 * (size - 1) * case.tokens * width * case.element
    return stage.num_layers * sent / case.bandwidth(size, tensor)


def _pipeline_parallel(case: _Case, stage: Stage) -> float:
    """Return the seconds of a microbatch's hidden states to the next stage, and of their gradients back."""
    layout = case.layout
    size = layout.pipeline_model_parallel_size
    if size == 1:
        return 0.0
    split = layout.tensor_model_parallel_size if case.recipe.parallel.sequence_parallel else 1
    sent = 2 * len(stage.chunks) * case.tokens * case.recipe.model.language.hidden_size * case.element / split
    return sent / case.bandwidth(size, layout.world_size // size)


def _data_parallel(case: _Case, trained: int, microbatch: float) -> float:
    """Return the seconds of reducing gradients and, after a sharded update, of gathering weights, where exposed.

    The last microbatch's backward pass, two thirds of its time, hides what is reduced meanwhile; the first one's
    forward pass, one third, what is gathered.
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
    """Return the seconds in which weights, both moments and gradients are read and written, and the buffer cleared."""
    layout = case.layout
    shards = layout.data_parallel_size * layout.context_parallel_size
    own = trained / (shards if case.recipe.parallel.use_distributed_optimizer else 1)
    masters_and_moments = 2 * 3 * 4
    moved = own * (masters_and_moments + 2 * case.gradient + case.element) + trained * case.gradient
    return moved / (case.gpu.bandwidth * _GIGA)
