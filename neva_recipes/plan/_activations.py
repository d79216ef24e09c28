"""Bytes of activations that a GPU keeps between forward and backward.

The formulas count what the fused kernels of Transformer Engine and Megatron-Core's layers keep: attention does not
materialise its matrix (as FlashAttention, arXiv 2205.14135), a norm keeps its input, and a linear layer keeps its input
only if its weights are trained. Korthikanti et al. (arXiv 2205.05198) count in the same way for GPT layers with dropout
and without fused attention.
"""

from dataclasses import dataclass

from neva_recipes.config import LanguageConfig, ProjectorConfig, Recipe, VisionConfig
from neva_recipes.plan._sizes import element_bytes
from neva_recipes.plan.layout import Layout, Stage
from neva_recipes.plan.parameters import vision_layers_run

__all__ = ["language_activations", "logits_activations", "pieces_in_flight", "vision_activations"]

_STATISTIC = 4
"""Bytes of the number that attention keeps for each query and head: the logarithm of its softmax's denominator."""


@dataclass(frozen=True)
class _LayerBytes:
    """What one layer keeps of a token on one rank.

    Attributes:
        norm_inputs: Inputs of the two norms, which are the residual stream.
        norm_outputs: Outputs of the two norms; only trained linear layers need them.
        attention_inputs: Queries, keys and values.
        attention_output: Attention's result.
        statistic: What attention keeps beside these.
        feed_forward: Outputs of SwiGLU's first linear layer, and of its activation if the second one is trained.
        masks: Dropout masks of the residual branches.
    """

    norm_inputs: float
    norm_outputs: float
    attention_inputs: float
    attention_output: float
    statistic: float
    feed_forward: float
    masks: float

    @property
    def total(self) -> float:
        return (
            self.norm_inputs
            + self.norm_outputs
            + self.attention_inputs
            + self.attention_output
            + self.statistic
            + self.feed_forward
            + self.masks
        )


def language_activations(recipe: Recipe, layout: Layout, stage: Stage, row_length: float) -> float:
    """Return the bytes that a stage's layers keep at its fullest, of rows of a length in tokens.

    Frozen weights save what only their own gradient needs; gradients pass through them all the same.
    """
    layer = _layer_bytes(recipe)
    tokens = _tokens(recipe, row_length)
    kept, live = _recompute(recipe, stage, layer)
    hidden = recipe.model.language.hidden_size * element_bytes(recipe) / _sequence_split(recipe)
    # What goes on to the next stage stays with this one until its gradient comes back; the last stage has a norm.
    end = (1 if recipe.model.language.freeze else 2) * hidden if stage.has_output else hidden
    return tokens * (pieces_in_flight(layout, stage) * kept + live + end * _ends_in_flight(layout, stage))


def logits_activations(recipe: Recipe, row_length: float) -> float:
    """Return the bytes of the last stage's logits: as they are, in fp32 for the loss, and their gradient."""
    tensor = recipe.parallel.tensor_model_parallel_size
    columns = recipe.model.language.padded_vocab_size(tensor) / tensor
    return _tokens(recipe, row_length) * columns * (2 * element_bytes(recipe) + 4)


def vision_activations(recipe: Recipe, layout: Layout, stage: Stage) -> float:
    """Return the bytes of images, of the tower's and the projector's activations, and of the features between them.

    A sample has at most one image. A rank holds the images of all its microbatches of a step, in fp32, on every stage.
    On the first, the images of a microbatch are divided over the tensor-parallel ranks for the tower, while the
    projector sees all of them on each rank. A frozen tower keeps nothing but its features.
    """
    vision, projector = recipe.model.vision, recipe.model.projector
    if vision is None or projector is None:
        return 0.0
    images = recipe.data.micro_batch_size
    waiting = layout.num_microbatches * images * 3 * vision.image_size**2 * 4.0
    if not stage.has_embedding:
        return waiting
    share = -(-images // recipe.parallel.tensor_model_parallel_size)
    tower_tokens = (vision.image_size // vision.patch_size) ** 2 + vision.has_class_token
    in_flight = _ends_in_flight(layout, stage)
    tower = share * tower_tokens * _tower_bytes(vision, element_bytes(recipe)) * (1 if vision.freeze else in_flight)
    features = images * vision.tokens_per_image * in_flight
    return waiting + tower + features * _projector_bytes(projector, vision, recipe)


def _tokens(recipe: Recipe, row_length: float) -> float:
    """Return the tokens of a microbatch on one rank."""
    return recipe.data.micro_batch_size * row_length / recipe.parallel.context_parallel_size


def _sequence_split(recipe: Recipe) -> int:
    """Return over how many ranks norms and residuals are divided."""
    return recipe.parallel.tensor_model_parallel_size if recipe.parallel.sequence_parallel else 1


def _layer_bytes(recipe: Recipe) -> _LayerBytes:
    language, tensor, split = recipe.model.language, recipe.parallel.tensor_model_parallel_size, _sequence_split(recipe)
    size, trained = element_bytes(recipe), not language.freeze
    query, key_and_value = _attention_widths(language, tensor)
    hidden = language.hidden_size / split
    return _LayerBytes(
        norm_inputs=2 * hidden * size,
        norm_outputs=2 * hidden * size * trained,
        attention_inputs=(query + key_and_value) * size,
        attention_output=query * size,
        statistic=_STATISTIC * language.num_attention_heads / tensor,
        feed_forward=(3 if trained else 2) * language.ffn_hidden_size / tensor * size,
        masks=2 * hidden * (language.hidden_dropout > 0),
    )


def _attention_widths(language: LanguageConfig, tensor: int) -> tuple[float, float]:
    """Return the width of a rank's queries, and of its keys and values together; a rank has at least one group."""
    groups = max(language.num_query_groups / tensor, 1)
    return language.num_attention_heads * language.head_size / tensor, 2 * groups * language.head_size


def _recompute(recipe: Recipe, stage: Stage, layer: _LayerBytes) -> tuple[float, float]:
    """Return the bytes of a token that one virtual stage keeps, and those that live only while layers are recomputed.

    Uniform keeps the input of every group of layers, block that of the first layers of each virtual stage.
    """
    model, layers = recipe.model, max(map(len, stage.chunks))
    number = model.recompute_num_layers or 1
    if model.recompute_granularity == "full":
        # The input of a layer is the residual stream, which its first norm keeps; the layers at work find it kept.
        entry = layer.norm_inputs / 2
        if model.recompute_method == "block":
            again = min(number, layers)
            return again * entry + (layers - again) * layer.total, layer.total - entry
        return -(-layers // number) * entry, min(number, layers) * layer.total - entry
    if model.recompute_granularity == "selective":
        dropped = _dropped(layer, set(model.recompute_modules or ["core_attn"]), trained=not model.language.freeze)
        return layers * (layer.total - dropped), dropped
    return layers * layer.total, 0.0


def _dropped(layer: _LayerBytes, modules: set[str], *, trained: bool) -> float:
    """Return the bytes of a token that recomputing some modules of a layer saves."""
    dropped = 0.0
    if "core_attn" in modules:
        # The linear layer that follows keeps attention's result, if it is trained.
        dropped += layer.statistic + (0.0 if trained else layer.attention_output)
    if "mlp" in modules:
        dropped += layer.feed_forward
    # Each module accounts for the norm in front of it: Transformer Engine computes the second one with the MLP.
    norms = 2 if "layernorm" in modules else 1 if "mlp" in modules else 0
    return dropped + norms * layer.norm_outputs / 2


def pieces_in_flight(layout: Layout, stage: Stage) -> int:
    """Return how often a virtual stage's activations are held at once, for different microbatches or pieces.

    Stage s of p holds p - s microbatches under 1F1B (arXiv 2006.09503). With v pieces it starts 2(p - s - 1) + (v - 1)p
    forward passes of a piece before its first backward pass (arXiv 2104.04473 and Megatron-Core's schedules.py).
    """
    stages, pieces = layout.pipeline_model_parallel_size, len(stage.chunks)
    before = stages - stage.index - 1 if pieces == 1 else 2 * (stages - stage.index - 1) + (pieces - 1) * stages
    return min(before + 1, layout.num_microbatches * pieces)


def _ends_in_flight(layout: Layout, stage: Stage) -> int:
    """Return for how many microbatches a stage holds what lies before its first layer, or after its last one."""
    return (
        1 if stage.has_output and not stage.has_embedding else -(-pieces_in_flight(layout, stage) // len(stage.chunks))
    )


def _tower_bytes(vision: VisionConfig, size: int) -> float:
    """Return the bytes of a token in the tower: of all layers that run if it is trained, else of the one at work."""
    hidden, ffn = vision.hidden_size, vision.ffn_hidden_size
    if vision.freeze:
        # Residual and normed input beside queries, keys, values and result, or beside the widened activations.
        return max(6 * hidden, 2 * hidden + 2 * ffn) * size
    # Quick GELU is x * sigmoid(1.702 x) in three steps; the others keep their input alone.
    widened = (3 if vision.hidden_act == "quick_gelu" else 2) * ffn
    layer = 8 * hidden * size + widened * size + _STATISTIC * vision.num_attention_heads
    return vision_layers_run(vision) * layer


def _projector_bytes(projector: ProjectorConfig, vision: VisionConfig, recipe: Recipe) -> float:
    """Return the bytes of an image token in the projector: inputs of trained layers and of GELUs, and the result."""
    inner = (projector.num_layers - 1) * recipe.model.language.hidden_size
    inputs = vision.hidden_size + inner if not projector.freeze else 0
    return (inputs + inner + recipe.model.language.hidden_size) * element_bytes(recipe)
