"""Floating-point operations of a model, counted from its shape.

A matrix product of [m, k] and [k, n] is 2mkn operations. The backward pass takes as many for the gradient of its input,
if gradients must pass, and as many for the gradient of its weight, if that is trained. Norms, activation functions and
the optimizer are not counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from neva_recipes.config import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from neva_recipes.families import (
    adapter_parameters,
    adapters_of,
    image_length,
    language_family,
    layers_run,
    patches_of,
    vision_family,
)
from neva_recipes.plan.cost.parameters import layer_linear_parameters

__all__ = ["ComponentFlops", "model_flops", "recompute_flops", "training_flops"]


@dataclass(frozen=True)
class ComponentFlops:
    """Operations of one component of the model.

    Attributes:
        component: `linear layers` and `attention` of the language model's layers, its `logits`, `vision`, `projector`;
            `adapters` if there are any.
        forward: Operations of the forward pass.
        training: Operations of forward and backward pass, without recomputation.
    """

    component: str
    forward: float
    training: float


def model_flops(
    model: ModelConfig, *, sequence_length: float, sequences: float, images: float
) -> tuple[ComponentFlops, ...]:
    """Return the operations of each component in one training step over a batch.

    Of causal attention, only the products that the mask leaves are counted: half of [sequence, sequence], or fewer
    with a window.

    Args:
        model: The model.
        sequence_length: Tokens of a row, image tokens and padding included.
        sequences: Rows.
        images: Images encoded by the vision tower.
    """
    language, tokens = model.language, sequence_length * sequences
    weights_trained = language.trains_weights
    # Beside adapters, gradients pass through all layers.
    passes = language.trains or _sees_trained(model)
    linear = 2.0 * tokens * language.num_layers * layer_linear_parameters(language)
    attention = tokens * language.num_layers * _attention_flops(language, sequence_length)
    logits = 2.0 * tokens * language.hidden_size * language.vocab_size
    components = [
        ComponentFlops("linear layers", linear, linear * (1 + passes + weights_trained)),
        # Attention has no weights: both of its products have two inputs that need gradients.
        ComponentFlops("attention", attention, attention * (1 + 2 * passes)),
        ComponentFlops("logits", logits, logits * (1 + passes + weights_trained)),
    ]
    if model.vision is not None and model.projector is not None:
        components.append(_vision_flops(model.vision, images))
        components.append(_projector_flops(model.projector, model.vision, language.hidden_size, images))
    if model.has_adapters:
        forward = 2.0 * (tokens * _adapter_weights(model, "language") + images * _tower_adapters(model))
        components.append(ComponentFlops("adapters", forward, 3 * forward))
    return tuple(components)


def training_flops(model: ModelConfig, *, sequence_length: float, sequences: float, images: float) -> float:
    """Return the operations of one training step over a batch, without recomputation.

    Args:
        model: The model.
        sequence_length: Tokens of a row, image tokens and padding included.
        sequences: Rows.
        images: Images encoded by the vision tower.
    """
    components = model_flops(model, sequence_length=sequence_length, sequences=sequences, images=images)
    return sum(component.training for component in components)


def recompute_flops(
    model: ModelConfig, *, sequence_length: float, sequences: float, chunks: Iterable[int]
) -> Mapping[str, float]:
    """Return the operations of one training step that only recompute activations, by component.

    Args:
        model: The model.
        sequence_length: Tokens of a row, image tokens and padding included.
        sequences: Rows.
        chunks: Number of layers in each virtual pipeline stage of the model.
    """
    language, tokens = model.language, sequence_length * sequences
    attention = _attention_flops(language, sequence_length)
    if model.recompute_granularity == "full":
        number = (model.recompute_num_layers or 1) if model.recompute_method == "block" else language.num_layers
        layers = sum(min(number, chunk) for chunk in chunks)
        linear = 2.0 * layer_linear_parameters(language)
        return {"linear layers": tokens * layers * linear, "attention": tokens * layers * attention}
    if model.recompute_granularity == "selective":
        modules = model.recompute_modules or ["core_attn"]
        attention = attention if "core_attn" in modules else 0.0
        linear = 2.0 * language_family(language).mlp_parameters(language) if "mlp" in modules else 0.0
        layers = language.num_layers
        return {"linear layers": tokens * layers * linear, "attention": tokens * layers * attention}
    return {"linear layers": 0.0, "attention": 0.0}


def _sees_trained(model: ModelConfig) -> bool:
    """Return whether a part before the language model is trained, so that gradients pass through all of it."""
    return any(part is not None and part.trains for part in (model.vision, model.projector))


def _adapter_weights(model: ModelConfig, part: str) -> int:
    lora = (model.language if part == "language" else model.vision or model.language).lora
    return sum(adapter_parameters(lora, site) for _, site in adapters_of(model, part)) if lora is not None else 0


def _tower_adapters(model: ModelConfig) -> int:
    """Return the weights of a tower's adapters, as often as an image has tokens in it."""
    vision = model.vision
    if vision is None or vision.lora is None:
        return 0
    return _adapter_weights(model, "vision") * (patches_of(vision) + vision_family(vision).has_class_token)


def _attention_flops(language: LanguageConfig, length: float) -> float:
    """Return the operations for a token in a layer: scores and weighted values.

    On average a token sees half of the row. With a window w, shorter than the row n, it sees w - w^2 / 2n: w tokens,
    except at the begin of the row.
    """
    window = min(language.sliding_window or length, length)
    seen = window - window**2 / (2 * max(length, 1))
    return 4.0 * language.num_attention_heads * language.head_size * seen


def _vision_flops(vision: VisionConfig, images: float) -> ComponentFlops:
    hidden, patches = vision.hidden_size, patches_of(vision)
    tokens = patches + vision_family(vision).has_class_token
    weights = 4 * hidden * hidden + 2 * hidden * vision.ffn_hidden_size
    layers = layers_run(vision) * tokens * (2.0 * weights + 4.0 * tokens * hidden)
    embedding = 2.0 * 3 * vision.patch_size**2 * hidden * patches
    trained = vision.trains_weights
    # An image needs no gradient.
    training = layers * (1 + vision.trains + trained) + embedding * (2 if trained else 1)
    return ComponentFlops("vision", images * (layers + embedding), images * training)


def _projector_flops(
    projector: ProjectorConfig, vision: VisionConfig, hidden_size: int, images: float
) -> ComponentFlops:
    tokens, trained = images * image_length(vision), not projector.freeze
    first = 2.0 * tokens * vision.hidden_size * hidden_size
    others = 2.0 * tokens * (projector.num_layers - 1) * hidden_size * hidden_size
    training = first * (1 + trained + vision.trains) + others * (1 + trained + (trained or vision.trains))
    return ComponentFlops("projector", first + others, training)
