"""How many weights a model has, exactly, on every rank.

The shapes are those of Megatron-Core's GPTModel without biases, of transformers' CLIP and SigLIP towers, and of linear
layers with bias for the projector. Every tensor-parallel rank of a stage holds the same number of weights.
"""

from dataclasses import dataclass

from neva_recipes.config import LanguageConfig, ProjectorConfig, Recipe, VisionConfig
from neva_recipes.plan.layout import Stage

__all__ = [
    "PartParameters",
    "count_parameters",
    "layer_linear_parameters",
    "stage_linear_parameters",
    "stage_parameters",
    "vision_layers_run",
]


@dataclass(frozen=True)
class PartParameters:
    """The weights of one part of the model.

    Attributes:
        part: `language`, `vision` or `projector`.
        total: Weights.
        trained: Those of them that training changes.
    """

    part: str
    total: int
    trained: int


def count_parameters(recipe: Recipe) -> tuple[PartParameters, ...]:
    """Return the weights of each part of a recipe's model, without those that only pad the vocabulary.

    Weights that embeddings and output layer share are counted once.
    """
    language = recipe.model.language
    embedding = language.vocab_size * language.hidden_size
    total = (1 if language.share_embeddings_and_output_weights else 2) * embedding
    total += language.num_layers * (layer_linear_parameters(language) + 2 * language.hidden_size) + language.hidden_size
    return (_frozen_or_not("language", total, language.freeze), *_seeing_parts(recipe))


def stage_parameters(recipe: Recipe, stage: Stage) -> tuple[PartParameters, ...]:
    """Return the weights on each GPU of a pipeline stage, those that pad the vocabulary included.

    Norms, vision tower and projector are whole on every tensor-parallel rank. Where embeddings and output layer share
    their weights, a last stage that is not the first holds a copy of them.

    Args:
        recipe: A recipe whose sizes divide by its tensor-parallel size.
        stage: The stage.
    """
    language, tensor = recipe.model.language, recipe.parallel.tensor_model_parallel_size
    total = stage.num_layers * (layer_linear_parameters(language) // tensor + 2 * language.hidden_size)
    embedding = language.padded_vocab_size(tensor) // tensor * language.hidden_size
    if stage.has_embedding:
        total += embedding
    if stage.has_output:
        is_shared = language.share_embeddings_and_output_weights and stage.has_embedding
        total += (0 if is_shared else embedding) + language.hidden_size
    return (
        _frozen_or_not("language", total, language.freeze),
        *(_seeing_parts(recipe) if stage.has_embedding else ()),
    )


def stage_linear_parameters(recipe: Recipe, stage: Stage) -> int:
    """Return the weights of linear layers that run in FP8, where FP8 is on, on each GPU of a pipeline stage."""
    precision, language = recipe.precision, recipe.model.language
    first, last = 0, language.num_layers
    if precision.first_last_layers_bf16:
        first, last = precision.num_layers_at_start_in_bf16, last - precision.num_layers_at_end_in_bf16
    layers = sum(first <= layer < last for chunk in stage.chunks for layer in chunk)
    return layers * layer_linear_parameters(language) // recipe.parallel.tensor_model_parallel_size


def layer_linear_parameters(language: LanguageConfig) -> int:
    """Return the weights of one layer's linear layers: query, key and value, output, and the three of SwiGLU."""
    hidden, head = language.hidden_size, language.head_size
    query, keys_and_values = language.num_attention_heads * head, 2 * language.num_query_groups * head
    return hidden * (query + keys_and_values) + query * hidden + 3 * hidden * language.ffn_hidden_size


def vision_layers_run(vision: VisionConfig) -> int:
    """Return how many layers of the tower the selected features need; those above them never run.

    Hidden state k is the output of layer k, hidden state 0 that of the embeddings.
    """
    selected = vision.vision_select_layer
    return selected if selected >= 0 else vision.num_layers + 1 + selected


def _seeing_parts(recipe: Recipe) -> list[PartParameters]:
    vision, projector = recipe.model.vision, recipe.model.projector
    if vision is None or projector is None:
        return []
    weights = _projector_parameters(projector, vision, recipe.model.language.hidden_size)
    return [_vision_parameters(vision), _frozen_or_not("projector", weights, projector.freeze)]


def _vision_parameters(vision: VisionConfig) -> PartParameters:
    """Count transformers' CLIPVisionModel, or SiglipVisionModel without its head.

    Both have a norm after the last layer. It takes no part in the features, no more than the layers above the selected
    one, so none of these is trained.
    """
    hidden, ffn = vision.hidden_size, vision.ffn_hidden_size
    patches = (vision.image_size // vision.patch_size) ** 2
    is_clip = vision.vision_model_type == "clip"
    # CLIP has a class token with a position of its own and a norm before the layers, SigLIP a bias of its patches.
    embeddings = 3 * vision.patch_size**2 * hidden + patches * hidden + (2 * hidden if is_clip else hidden)
    first_norm = 2 * hidden if is_clip else 0
    layer = 4 * (hidden * hidden + hidden) + (2 * hidden * ffn + ffn + hidden) + 4 * hidden
    total = embeddings + first_norm + vision.num_layers * layer + 2 * hidden
    trained = 0 if vision.freeze else embeddings + first_norm + vision_layers_run(vision) * layer
    return PartParameters("vision", total, trained)


def _projector_parameters(projector: ProjectorConfig, vision: VisionConfig, hidden_size: int) -> int:
    first = (vision.hidden_size + 1) * hidden_size
    return first + (projector.num_layers - 1) * (hidden_size + 1) * hidden_size


def _frozen_or_not(part: str, total: int, freeze: bool) -> PartParameters:
    return PartParameters(part, total, 0 if freeze else total)
