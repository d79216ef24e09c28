"""Bytes of activations that a GPU keeps between the forward and the backward pass.

The formulas count what the fused kernels of Transformer Engine and Megatron-Core's layers keep. Attention does not keep
its matrix (as in FlashAttention, arXiv 2205.14135), a norm keeps its input, and a linear layer keeps its input only if
its weights are trained. In FP8 that input takes one byte a number: the copy that the weight's gradient is computed from
(Transformer Engine's `LayerNormLinear` and `Linear`). Other kernels keep bf16. Korthikanti et al. (arXiv 2205.05198)
count in the same way for GPT layers with dropout and without fused attention.
"""

from dataclasses import dataclass

from neva_recipes.config import LanguageConfig, ProjectorConfig, Recipe, VisionConfig
from neva_recipes.families import Layout as WeightLayout
from neva_recipes.families import (
    adapter_sites,
    image_length,
    language_family,
    language_sites,
    layers_run,
    patches_of,
    vision_family,
)
from neva_recipes.plan.cost.layout import Layout
from neva_recipes.plan.cost.parameters import share_in_fp8
from neva_recipes.plan.cost.sizes import Stage, element_bytes

__all__ = ["language_activations", "logits_activations", "pieces_in_flight", "vision_activations"]

_FP8 = 1
"""Bytes of a number in FP8; the scales of the block formats add less than 4 %."""

_STATISTIC = 4
"""Bytes that attention keeps for each query and head: the logarithm of its softmax's denominator."""


@dataclass(frozen=True)
class _LayerBytes:
    """Bytes that one layer keeps for a token on one rank.

    Attributes:
        norm_inputs: Inputs of the two norms, which are the residual stream.
        norm_outputs: Outputs of the two norms; only trained linear layers need them.
        attention_inputs: Queries, keys and values; with norms of queries and keys also the inputs of these.
        attention_output: The output of attention.
        attention_copy: The same in FP8, for the gradient of the linear layer after it.
        statistic: Softmax statistics that attention keeps.
        feed_forward: Outputs of the feed-forward part's first linear layer, which are two for SwiGLU, and of its
            activation if the second layer is trained.
        masks: Dropout masks of the residual branches.
        adapters: What adapters need besides their inputs; with dropout also these.
    """

    norm_inputs: float
    norm_outputs: float
    attention_inputs: float
    attention_output: float
    attention_copy: float
    statistic: float
    feed_forward: float
    masks: float
    adapters: float

    @property
    def total(self) -> float:
        return (
            self.norm_inputs
            + self.norm_outputs
            + self.attention_inputs
            + self.attention_output
            + self.attention_copy
            + self.statistic
            + self.feed_forward
            + self.masks
            + self.adapters
        )


def language_activations(recipe: Recipe, layout: Layout, stage: Stage, row_length: float) -> float:
    """Return the most bytes that a stage's layers keep at a time, for rows of a length in tokens.

    Frozen weights save what only their own gradient needs; gradients still pass through them.
    """
    layer = _layer_bytes(recipe, stage)
    tokens = _tokens(recipe, row_length)
    kept, live = _recompute(recipe, stage, layer)
    hidden = recipe.model.language.hidden_size * element_bytes(recipe) / _sequence_split(recipe)
    # The output for the next stage stays here until its gradient comes back; the last stage has a norm instead.
    end = (2 if recipe.model.language.trains_weights else 1) * hidden if stage.has_output else hidden
    return tokens * (pieces_in_flight(layout, stage) * kept + live + end * _ends_in_flight(layout, stage))


def logits_activations(recipe: Recipe, row_length: float) -> float:
    """Return the bytes of the last stage's logits: the logits, their copy in fp32 for the loss, and their gradient."""
    tensor = recipe.parallel.tensor_model_parallel_size
    columns = recipe.model.language.padded_vocab_size(tensor) / tensor
    return _tokens(recipe, row_length) * columns * (2 * element_bytes(recipe) + 4)


def vision_activations(recipe: Recipe, layout: Layout, stage: Stage) -> float:
    """Return the bytes of images, of the tower's and the projector's activations, and of the features between them.

    A sample has at most one image. On every stage, a rank holds the images of all its micro batches of a step, in fp32.
    On the first stage, the tower divides the images of a micro batch over the tensor-parallel ranks, while the
    projector processes all of them on each rank. A frozen tower keeps only its features.
    """
    vision, projector = recipe.model.vision, recipe.model.projector
    if vision is None or projector is None:
        return 0.0
    images = recipe.data.micro_batch_size
    waiting = layout.num_microbatches * images * 3 * vision.image_size**2 * 4.0
    if not stage.has_embedding:
        return waiting
    share = -(-images // recipe.parallel.tensor_model_parallel_size)
    tower_tokens = patches_of(vision) + vision_family(vision).has_class_token
    in_flight = _ends_in_flight(layout, stage)
    tower = share * tower_tokens * _tower_bytes(vision, element_bytes(recipe)) * (in_flight if vision.trains else 1)
    features = images * image_length(vision) * in_flight
    return waiting + tower + features * _projector_bytes(projector, vision, recipe)


def _tokens(recipe: Recipe, row_length: float) -> float:
    """Return the tokens of a micro batch on one rank."""
    return recipe.data.micro_batch_size * row_length / recipe.parallel.context_parallel_size


def _sequence_split(recipe: Recipe) -> int:
    """Return the number of ranks over which norms and residuals are divided."""
    return recipe.parallel.tensor_model_parallel_size if recipe.parallel.sequence_parallel else 1


def _layer_bytes(recipe: Recipe, stage: Stage) -> _LayerBytes:
    """Return the bytes that a layer of a stage keeps, on average if only some layers are in FP8."""
    language, tensor, split = recipe.model.language, recipe.parallel.tensor_model_parallel_size, _sequence_split(recipe)
    size, lora = element_bytes(recipe), language.lora
    # An adapter needs its input for its gradient; with dropout a copy of its own.
    trained = language.trains_weights or (lora is not None and not lora.dropout)
    fp8 = share_in_fp8(recipe, stage)
    linear_input = (fp8 * _FP8 + (1 - fp8) * size) * trained
    query, key_and_value = _attention_widths(language, tensor)
    normed = (query + key_and_value / 2) * language_family(language).norms_queries
    hidden = language.hidden_size / split
    return _LayerBytes(
        norm_inputs=2 * hidden * size,
        norm_outputs=2 * hidden * linear_input,
        attention_inputs=(query + key_and_value + normed) * size,
        attention_output=query * size,
        attention_copy=query * fp8 * _FP8 * trained,
        statistic=_STATISTIC * language.num_attention_heads / tensor,
        feed_forward=language.ffn_hidden_size / tensor * (language_family(language).mlp_inputs * size + linear_input),
        masks=2 * hidden * (language.hidden_dropout > 0),
        adapters=_adapter_bytes(recipe, stage),
    )


def _adapter_bytes(recipe: Recipe, stage: Stage) -> float:
    """Return the bytes for a token in a layer's adapters, on average over the layers of a stage.

    Each keeps the output of its first matrix. Dropout makes a copy of the input for each, and a mask of a byte; DoRA
    keeps what the layer and the adapter compute.
    """
    lora, layers = recipe.model.language.lora, [layer for chunk in stage.chunks for layer in chunk]
    if lora is None:
        return 0.0
    size, split, tensor = element_bytes(recipe), _sequence_split(recipe), recipe.parallel.tensor_model_parallel_size
    kept = 0.0
    for site in adapter_sites(lora, language_sites(recipe.model.language)):
        columns, rows = site.share(tensor)
        dropped = columns / (1 if site.layout is WeightLayout.COLUMNS else split) * (size + 1)
        kept += lora.rank * size + dropped * (lora.dropout > 0) + 2 * rows * size * (lora.kind == "dora")
    return kept * sum(map(lora.covers, layers)) / len(layers)


def _attention_widths(language: LanguageConfig, tensor: int) -> tuple[float, float]:
    """Return the width of a rank's queries, and of its keys and values together; a rank has at least one group."""
    groups = max(language.num_query_groups / tensor, 1)
    return language.num_attention_heads * language.head_size / tensor, 2 * groups * language.head_size


def _recompute(recipe: Recipe, stage: Stage, layer: _LayerBytes) -> tuple[float, float]:
    """Return the bytes for a token that one virtual stage keeps, and those that exist only during recomputation.

    The uniform method keeps the input of every group of layers, block that of the first layers of each virtual stage.
    """
    model, layers = recipe.model, max(map(len, stage.chunks))
    number = model.recompute_num_layers or 1
    if model.recompute_granularity == "full":
        # The input of a layer is the residual stream, which the layer's first norm already keeps.
        entry = layer.norm_inputs / 2
        if model.recompute_method == "block":
            again = min(number, layers)
            return again * entry + (layers - again) * layer.total, layer.total - entry
        return -(-layers // number) * entry, min(number, layers) * layer.total - entry
    if model.recompute_granularity == "selective":
        # In bf16 a trained linear layer keeps the output of attention itself.
        kept = 1 - share_in_fp8(recipe, stage) if model.language.trains_weights else 0.0
        dropped = _dropped(layer, set(model.recompute_modules or ["core_attn"]), kept * layer.attention_output)
        return layers * (layer.total - dropped), dropped
    return layers * layer.total, 0.0


def _dropped(layer: _LayerBytes, modules: set[str], kept_output: float) -> float:
    """Return the bytes for a token that recomputing modules of a layer saves, except the kept attention output."""
    dropped = 0.0
    if "core_attn" in modules:
        dropped += layer.statistic + layer.attention_output - kept_output
    if "mlp" in modules:
        dropped += layer.feed_forward
    # Each module includes the norm before it: Transformer Engine computes the second norm with the MLP.
    norms = 2 if "layernorm" in modules else 1 if "mlp" in modules else 0
    return dropped + norms * layer.norm_outputs / 2


def pieces_in_flight(layout: Layout, stage: Stage) -> int:
    """Return how many sets of a virtual stage's activations are held at once, for different micro batches or chunks.

    Stage s of p holds p - s micro batches under 1F1B (arXiv 2006.09503). With v virtual stages it starts
    2(p - s - 1) + (v - 1)p forward passes before its first backward pass (arXiv 2104.04473 and Megatron-Core's
    schedules.py).
    """
    stages, pieces = layout.pipeline_model_parallel_size, len(stage.chunks)
    before = stages - stage.index - 1 if pieces == 1 else 2 * (stages - stage.index - 1) + (pieces - 1) * stages
    return min(before + 1, layout.num_microbatches * pieces)


def _ends_in_flight(layout: Layout, stage: Stage) -> int:
    """Return for how many micro batches a stage holds the activations before its first or after its last layer."""
    return (
        1 if stage.has_output and not stage.has_embedding else -(-pieces_in_flight(layout, stage) // len(stage.chunks))
    )


def _tower_bytes(vision: VisionConfig, size: int) -> float:
    """Return the bytes for a token in the tower: of all layers that run if it is trained, otherwise of one layer."""
    hidden, ffn = vision.hidden_size, vision.ffn_hidden_size
    if not vision.trains:
        # The residual and the normed input, with queries, keys, values and output, or with the widened activations.
        return max(6 * hidden, 2 * hidden + 2 * ffn) * size
    # Quick GELU is x * sigmoid(1.702 x) in three steps; the other activations only keep their input.
    widened = (3 if vision.hidden_act == "quick_gelu" else 2) * ffn
    # A product with weights keeps what is multiplied.
    kept = 8 + vision_family(vision).layer_scales
    layer = kept * hidden * size + widened * size + _STATISTIC * vision.num_attention_heads
    return layers_run(vision) * layer


def _projector_bytes(projector: ProjectorConfig, vision: VisionConfig, recipe: Recipe) -> float:
    """Return the bytes for an image token in the projector: inputs of trained layers and of GELUs, and the output."""
    inner = (projector.num_layers - 1) * recipe.model.language.hidden_size
    inputs = vision.hidden_size + inner if not projector.freeze else 0
    return (inputs + inner + recipe.model.language.hidden_size) * element_bytes(recipe)
