"""Seconds of a micro batch's kernels on a stage: matrix products, attention, and other kernels.

Each is a number of operations divided by a share of the GPU's peak, or a number of bytes divided by a share of its
bandwidth. The shares were fitted to published times (docs/plan.md lists all of them, and which were held out). They
cover what a count of operations does not show: tails of matrix products, gaps between kernels, ranks that wait.
"""

from neva_recipes.config import Recipe
from neva_recipes.plan.cost.flops import model_flops, recompute_flops
from neva_recipes.plan.cost.gpus import Gpu
from neva_recipes.plan.cost.layout import Layout
from neva_recipes.plan.cost.parameters import share_in_fp8
from neva_recipes.plan.cost.sizes import Stage, element_bytes
from neva_recipes.plan.data.lengths import Lengths

__all__ = ["ATTENTION_UTILISATION", "FP8_UTILISATION", "UTILISATION", "kernel_seconds"]

UTILISATION = 0.52
"""Share of the peak that matrix products in bf16 or fp32 are assumed to reach."""

FP8_UTILISATION = 0.65
"""Share of the FP8 peak that linear layers in FP8 are assumed to reach."""

ATTENTION_UTILISATION = 0.28
"""Share of the bf16 peak for attention, of whose products only the half that the mask leaves is counted."""

_BANDWIDTH_SHARE = 0.85
"""Share of the memory bandwidth that other kernels are assumed to reach."""

_LOGIT_BYTES = 16
"""Bytes moved for each logit: it is written, read for the softmax in fp32, and its gradient is written and read."""

_TERA, _GIGA = 1e12, 1e9


def kernel_seconds(recipe: Recipe, layout: Layout, lengths: Lengths, gpu: Gpu, stage: Stage) -> dict[str, float]:
    """Return the seconds of a micro batch on a stage by kind of kernel, recomputation included."""
    model, rows, length = recipe.model, recipe.data.micro_batch_size, lengths.padded
    tensor, split = layout.tensor_model_parallel_size, layout.tensor_model_parallel_size * layout.context_parallel_size
    images = rows * lengths.images
    flops = {
        part.component: part.training
        for part in model_flops(model, sequence_length=length, sequences=rows, images=images)
    }
    again = recompute_flops(
        model, sequence_length=length, sequences=rows, chunks=[len(chunk) for chunk in stage.chunks]
    )
    held = stage.num_layers / model.language.num_layers
    again_held = held if model.recompute_granularity == "selective" else 1.0
    of_layers = {name: (flops[name] * held + again[name] * again_held) / split for name in again}
    in_fp8 = share_in_fp8(recipe, stage) * of_layers["linear layers"]
    products = of_layers["linear layers"] - in_fp8
    if stage.has_output:
        products += flops["logits"] / split
    if stage.has_embedding and model.vision is not None and images:
        # The images of a micro batch are divided over the tensor-parallel ranks; each rank has the whole projector.
        products += flops["vision"] / images * -(-images // tensor) + flops["projector"]
    peak = (gpu.bf16_tflops if recipe.precision.precision == "bf16" else gpu.fp32_tflops) * _TERA
    seconds = products / (peak * UTILISATION)
    if in_fp8 and gpu.fp8_tflops is not None:
        seconds += in_fp8 / (gpu.fp8_tflops * FP8_UTILISATION * _TERA)
    return {
        "matrix products": seconds,
        "attention": of_layers["attention"] / (peak * ATTENTION_UTILISATION),
        "other kernels": _moved_bytes(recipe, layout, lengths, stage) / (gpu.bandwidth * _GIGA * _BANDWIDTH_SHARE),
    }


def _moved_bytes(recipe: Recipe, layout: Layout, lengths: Lengths, stage: Stage) -> float:
    """Return the bytes that norms, residuals, rotations, SwiGLU, casts and the loss read and write for a micro batch.

    For a token in a layer, in elements: the forward pass takes 4h for two norms, 6h for two residual sums, 2(q + k) to
    rotate queries and keys, and 3f for SwiGLU; the backward pass takes 12h, 2(q + k) and 5f. For every input of a
    linear layer and every gradient of its output, a cast to FP8 reads two bytes, and writes one byte twice: as it is
    and transposed.
    """
    language, tensor = recipe.model.language, layout.tensor_model_parallel_size
    hidden = language.hidden_size / (tensor if recipe.parallel.sequence_parallel else 1)
    query = language.num_attention_heads * language.head_size / tensor
    key = max(language.num_query_groups / tensor, 1) * language.head_size
    wide = language.ffn_hidden_size / tensor
    forward = (10 * hidden + 2 * (query + key) + 3 * wide) * element_bytes(recipe)
    backward = (12 * hidden + 2 * (query + key) + 5 * wide) * element_bytes(recipe)
    casts = 4 * (4 * hidden + 2 * query + 2 * key + 3 * wide) * share_in_fp8(recipe, stage)
    tokens = recipe.data.micro_batch_size * lengths.padded / layout.context_parallel_size
    moved = stage.num_layers * (forward + backward + casts) + _recomputed_layers(recipe, stage) * forward
    if stage.has_output:
        moved += language.padded_vocab_size(tensor) / tensor * _LOGIT_BYTES
    return tokens * moved


def _recomputed_layers(recipe: Recipe, stage: Stage) -> int:
    if recipe.model.recompute_granularity != "full":
        return 0
    number = recipe.model.recompute_num_layers or 1
    return sum(
        min(number, len(chunk)) if recipe.model.recompute_method == "block" else len(chunk) for chunk in stage.chunks
    )
