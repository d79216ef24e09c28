"""The exact number of weights of a model, on every rank.

The shapes are those that the families of the language model and of the vision tower declare, and those of linear layers
with bias for the projector. Every tensor-parallel rank of a stage holds the same number of weights.
"""

from collections.abc import Container
from dataclasses import dataclass

from neva_recipes.config import LanguageConfig, ProjectorConfig, Recipe, VisionConfig
from neva_recipes.families import adapter_parameters, adapters_of, language_family, layers_run, vision_family
from neva_recipes.plan.cost.sizes import Stage

__all__ = [
    "PartParameters",
    "count_parameters",
    "is_small",
    "layer_linear_parameters",
    "padding_parameters",
    "share_in_fp8",
    "stage_linear_parameters",
    "stage_parameters",
    "total_parameters",
    "vocabulary_tables",
]

_SMALL = 100_000_000
"""A model with fewer weights is one for a laptop or for tests."""


@dataclass(frozen=True)
class PartParameters:
    """The weights of one part of the model.

    Attributes:
        part: `language`, `vision` or `projector`.
        total: Number of weights.
        trained: Number of weights that are trained; with adapters their number, which is part of the total.
    """

    part: str
    total: int
    trained: int


def count_parameters(recipe: Recipe) -> tuple[PartParameters, ...]:
    """Return the weights of each part of a recipe's model, without the padding of the vocabulary.

    Weights that embeddings and output layer share are counted once.
    """
    language = recipe.model.language
    embedding = language.vocab_size * language.hidden_size
    total = vocabulary_tables(language) * embedding
    family = language_family(language)
    total += language.num_layers * sum(family.layer_parameters(language))
    total += family.start_parameters(language) + family.end_parameters(language)
    return (_with_adapters(recipe, "language", total, total), *_seeing_parts(recipe))


def total_parameters(recipe: Recipe) -> int:
    """Return the weights of a recipe's whole model, without the padding of the vocabulary."""
    return sum(part.total for part in count_parameters(recipe))


def is_small(recipe: Recipe) -> bool:
    """Return whether a model has fewer than 100 million weights: learning rates and padding are judged otherwise."""
    return total_parameters(recipe) < _SMALL


def vocabulary_tables(language: LanguageConfig) -> int:
    """Return the matrices with a row for each token: embeddings and output layer, or the one that they share."""
    return 1 if language.share_embeddings_and_output_weights else 2


def padding_parameters(recipe: Recipe) -> int:
    """Return the weights of the rows that only pad the vocabulary, in all its tables."""
    language = recipe.model.language
    rows = language.padded_vocab_size(recipe.parallel.tensor_model_parallel_size) - language.vocab_size
    return vocabulary_tables(language) * rows * language.hidden_size


def stage_parameters(recipe: Recipe, stage: Stage) -> tuple[PartParameters, ...]:
    """Return the weights on each GPU of a pipeline stage, including the padding of the vocabulary.

    Every tensor-parallel rank holds all of the norms, learned positions, the vision tower and the projector. If
    embeddings and output layer share their weights, a last stage that is not the first holds a copy of them.

    Args:
        recipe: A recipe whose sizes divide by its tensor-parallel size.
        stage: The stage.
    """
    language, tensor = recipe.model.language, recipe.parallel.tensor_model_parallel_size
    family = language_family(language)
    total = stage.num_layers * sum(family.layer_parameters(language, tensor))
    embedding = language.padded_vocab_size(tensor) // tensor * language.hidden_size
    if stage.has_embedding:
        total += embedding + family.start_parameters(language)
    if stage.has_output:
        is_shared = language.share_embeddings_and_output_weights and stage.has_embedding
        total += (0 if is_shared else embedding) + family.end_parameters(language)
    layers = {layer for chunk in stage.chunks for layer in chunk}
    return (
        _with_adapters(recipe, "language", total, total, layers=layers, tensor=tensor),
        *(_seeing_parts(recipe) if stage.has_embedding else ()),
    )


def stage_linear_parameters(recipe: Recipe, stage: Stage) -> int:
    """Return the weights of linear layers that run in FP8 if it is on, on each GPU of a pipeline stage."""
    precision, language = recipe.precision, recipe.model.language
    first, last = 0, language.num_layers
    if precision.first_last_layers_bf16:
        first, last = precision.num_layers_at_start_in_bf16, last - precision.num_layers_at_end_in_bf16
    layers = sum(first <= layer < last for chunk in stage.chunks for layer in chunk)
    return layers * layer_linear_parameters(language) // recipe.parallel.tensor_model_parallel_size


def share_in_fp8(recipe: Recipe, stage: Stage) -> float:
    """Return the share of a stage's layers whose linear layers run in FP8."""
    if recipe.precision.fp8 is None:
        return 0.0
    linear = stage.num_layers * layer_linear_parameters(recipe.model.language)
    return stage_linear_parameters(recipe, stage) * recipe.parallel.tensor_model_parallel_size / linear


def layer_linear_parameters(language: LanguageConfig) -> int:
    """Return the weights of one layer's linear layers, without their biases."""
    return language_family(language).layer_parameters(language)[0]


def _seeing_parts(recipe: Recipe) -> list[PartParameters]:
    vision, projector = recipe.model.vision, recipe.model.projector
    if vision is None or projector is None:
        return []
    weights = _projector_parameters(projector, vision, recipe.model.language.hidden_size)
    trained = 0 if projector.freeze else weights
    return [_vision_parameters(recipe, vision), PartParameters("projector", weights, trained)]


def _vision_parameters(recipe: Recipe, vision: VisionConfig) -> PartParameters:
    """Count a tower; what comes after the selected layer does not contribute to the features, so it is not trained."""
    family = vision_family(vision)
    before, layer = family.parameters(family.before, vision), family.parameters(family.layer, vision)
    total = before + vision.num_layers * layer + family.parameters(family.after, vision)
    return _with_adapters(recipe, "vision", total, before + layers_run(vision) * layer)


def _projector_parameters(projector: ProjectorConfig, vision: VisionConfig, hidden_size: int) -> int:
    first = (vision.hidden_size + 1) * hidden_size
    return first + (projector.num_layers - 1) * (hidden_size + 1) * hidden_size


def _with_adapters(
    recipe: Recipe, part: str, total: int, trainable: int, *, layers: Container[int] | None = None, tensor: int = 1
) -> PartParameters:
    """Count a part and its adapters.

    Args:
        recipe: The recipe.
        part: `language` or `vision`.
        total: Its own weights.
        trainable: Those that are trained if the part is.
        layers: The layers to count adapters of; `None` means all.
        tensor: Number of tensor-parallel ranks that share the part.
    """
    config = recipe.model.language if part == "language" else recipe.model.vision
    assert config is not None
    adapters = sum(
        adapter_parameters(config.lora, site, tensor)
        for layer, site in adapters_of(recipe.model, part)
        if config.lora is not None and (layers is None or layer in layers)
    )
    return PartParameters(part, total + adapters, trainable if config.trains_weights else adapters)
