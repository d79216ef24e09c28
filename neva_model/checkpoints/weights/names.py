"""The names and shapes of the weights of a whole model, and what reads them by these names."""

from collections.abc import Iterator
from typing import Protocol

import torch

from neva_recipes.config import LanguageConfig, ModelConfig
from neva_recipes.families import Layout, language_family, vision_family
from neva_recipes.families.language import sizes_of
from neva_recipes.families.tensors import LAYER_PREFIX, Shape, Weight
from neva_recipes.plan.huggingface import projector_names, vision_tensors

__all__ = [
    "LANGUAGE",
    "PROJECTOR",
    "VISION",
    "Weights",
    "language_names",
    "projector_names_of",
    "vocabulary_names",
    "weight_shapes",
]

LANGUAGE, VISION, PROJECTOR = "language.", "vision.", "projector."
"""What the names of the weights of each part begin with."""


class Weights(Protocol):
    """The weights of a whole model.

    A name is that of the part, a dot, and the name of the weight there: of the language model Core's, with layers
    counted over the whole model, of the tower that of its published directories.
    """

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a weight."""

    def read(self, name: str) -> torch.Tensor:
        """Return a weight as one tensor-parallel rank has it, without rows that pad the vocabulary.

        Raises:
            CheckpointError: Its file is damaged.
        """


def language_names(language: LanguageConfig) -> Iterator[tuple[str, Weight]]:
    """Yield Core's name of every parameter of a language model, the output layer included if it has its own."""
    family = language_family(language)
    yield from ((weight.core, weight) for weight in family.body if weight.core.startswith("embedding."))
    for number in range(language.num_layers):
        yield from ((f"{LAYER_PREFIX}{number}.{weight.core}", weight) for weight in family.layer)
    yield from ((weight.core, weight) for weight in family.body if not weight.core.startswith("embedding."))
    if not language.share_embeddings_and_output_weights:
        yield family.head.core, family.head


def vocabulary_names(language: LanguageConfig) -> frozenset[str]:
    """Return the names of the weights with a row for each token, whose rows ranks pad."""
    named = language_names(language)
    return frozenset(f"{LANGUAGE}{name}" for name, weight in named if weight.layout is Layout.VOCABULARY)


def projector_names_of(layers: int) -> Iterator[tuple[str, str]]:
    """Yield our names of the weight and the bias of each linear layer of a projector; they are those of a Sequential.

    Args:
        layers: Number of its linear layers.
    """
    # A projector of one layer is a Sequential too, unlike in the original LLaVA.
    yield from (projector_names(PROJECTOR, number, max(layers, 2)) for number in range(layers))


def weight_shapes(model: ModelConfig) -> dict[str, Shape]:
    """Return the shapes of all weights of a model, by their names."""
    sizes = sizes_of(model.language)
    shapes = {f"{LANGUAGE}{name}": _core_shape(weight, sizes) for name, weight in language_names(model.language)}
    if model.vision is not None and model.projector is not None:
        tower = vision_family(model.vision)
        shapes |= vision_tensors(VISION, tower, tower.sizes(model.vision), ())
        width = model.vision.hidden_size
        for matrix, bias in projector_names_of(model.projector.num_layers):
            shapes |= {matrix: (model.language.hidden_size, width), bias: (model.language.hidden_size,)}
            width = model.language.hidden_size
    return shapes


def _core_shape(weight: Weight, sizes: dict[str, int]) -> Shape:
    shapes = list(weight.shapes(sizes).values())
    if weight.transposed:
        shapes = [shape[::-1] for shape in shapes]
    return sum(shape[0] for shape in shapes), *shapes[0][1:]
