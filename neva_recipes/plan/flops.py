"""Floating-point operations of a model, counted from its shape."""

from neva_recipes.config import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig

__all__ = ["training_flops"]


def training_flops(model: ModelConfig, *, sequence_length: int, sequences: int, images: int) -> float:
    """Return the operations of one training step over a batch, recomputation not counted.

    A matrix product of [m, k] and [k, n] is 2mkn operations. A trained part costs its forward three times, a frozen
    part through which gradients must pass twice, a frozen part in front of everything trained once.

    Args:
        model: The model.
        sequence_length: Tokens of a row, image tokens and padding included.
        sequences: Rows.
        images: Images encoded by the vision tower.
    """
    language = 2 if model.language.freeze else 3
    total = language * sequences * _language_forward(model.language, sequence_length)
    if model.vision is not None and model.projector is not None:
        vision, projector = 1 if model.vision.freeze else 3, 3
        if model.projector.freeze:
            projector = 1 if model.vision.freeze else 2
        total += images * vision * _vision_forward(model.vision)
        total += images * projector * _projector_forward(model.projector, model.vision, model.language.hidden_size)
    return total


def _language_forward(config: LanguageConfig, length: int) -> float:
    hidden, head = config.hidden_size, config.head_size
    query = config.num_attention_heads * head
    attention_weights = hidden * (query + 2 * config.num_query_groups * head) + query * hidden
    weights = config.num_layers * (attention_weights + 3 * hidden * config.ffn_hidden_size) + hidden * config.vocab_size
    # Causal attention needs half of the two [length, length] products.
    return 2.0 * weights * length + 2.0 * length * length * query * config.num_layers


def _vision_forward(config: VisionConfig) -> float:
    hidden, tokens = config.hidden_size, (config.image_size // config.patch_size) ** 2 + config.has_class_token
    # The hidden state k is the output of layer k; hidden state 0 is the embeddings.
    selected = config.vision_select_layer
    layers = selected if selected >= 0 else config.num_layers + 1 + selected
    weights = layers * (4 * hidden * hidden + 2 * hidden * config.ffn_hidden_size)
    patches = 2.0 * 3 * config.patch_size**2 * hidden * (config.image_size // config.patch_size) ** 2
    return 2.0 * weights * tokens + 4.0 * tokens * tokens * hidden * layers + patches


def _projector_forward(projector: ProjectorConfig, vision: VisionConfig, hidden_size: int) -> float:
    weights = vision.hidden_size * hidden_size + (projector.num_layers - 1) * hidden_size * hidden_size
    return 2.0 * weights * vision.tokens_per_image
