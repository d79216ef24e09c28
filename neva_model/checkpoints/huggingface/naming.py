"""Which tensors of a Hugging Face directory a weight of a model becomes, before any is read."""

import copy
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from neva_model.checkpoints.huggingface.language import split_parameter
from neva_model.checkpoints.huggingface.safetensors_files import TensorSpec, split_over_files, write_files
from neva_model.checkpoints.weights.names import (
    LANGUAGE,
    VISION,
    Weights,
    language_names,
    projector_names_of,
    vocabulary_names,
    weight_shapes,
)
from neva_model.progress import ByteProgress
from neva_recipes.config import ModelConfig
from neva_recipes.families import vision_family
from neva_recipes.families.language import LanguageFamily, sizes_of
from neva_recipes.families.tensors import Shape
from neva_recipes.plan.huggingface import LanguageSpelling, core_weight, projector_names
from neva_recipes.plan.huggingface.names import vision_name

__all__ = ["ExportedWeights", "Naming", "main_type", "write_weights"]

Tensors = dict[str, torch.Tensor]

_AT_ONCE = 8192
"""Rows that are summed at once in single precision."""


@dataclass(frozen=True)
class Naming:
    """How a directory names the tensors of a model, and what it has beside those of the model.

    Attributes:
        family: The family of its language model.
        language: The names of the language model.
        vision: Prefix of the tower; `None` if it is elsewhere.
        projector: Prefix of the projector.
        has_output: Whether the output layer is there, even if it is the embedding.
        rows: Rows of the vocabulary, if they are more than those of the model.
        names: The names that there are, where those of a tower can be of several releases of transformers.
    """

    family: LanguageFamily
    language: LanguageSpelling
    vision: str | None
    projector: str
    has_output: bool
    rows: int
    names: Container[str] = ()


@dataclass(frozen=True)
class _Weight:
    """A weight, the tensors that it becomes, and how."""

    name: str
    shapes: Mapping[str, Shape]
    make: Callable[[torch.Tensor], Tensors]


class ExportedWeights:
    """The tensors of a directory: what they are, and one after the other their values.

    Attributes:
        specs: What each tensor is, in the order in which they come.
    """

    def __init__(
        self,
        weights: Weights,
        model: ModelConfig,
        naming: Naming,
        dtype: torch.dtype | Mapping[str, torch.dtype] | None,
    ) -> None:
        """Find out what there will be.

        Args:
            weights: The weights of the model.
            model: The model.
            naming: The names.
            dtype: The type of all tensors, or of each; `None` means that of the weight.
        """
        self._weights = weights
        self._planned = [*_language(model, naming), *_vision(model, naming), *_projector(model, naming)]
        self.specs: dict[str, TensorSpec] = {}
        for weight in self._planned:
            for name, shape in weight.shapes.items():
                given = dtype.get(name) if isinstance(dtype, Mapping) else dtype
                self.specs[name] = TensorSpec(given or weights.dtype(weight.name), shape)

    def below(self, prefix: str) -> "ExportedWeights":
        """Return those of the tensors whose names begin so."""
        some = copy.copy(self)
        some._planned = [weight for weight in self._planned if all(name.startswith(prefix) for name in weight.shapes)]
        some.specs = {name: spec for name, spec in self.specs.items() if name.startswith(prefix)}
        return some

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors with their names; each weight is read when its turn comes.

        Raises:
            CheckpointError: The file of a weight is damaged.
        """
        for weight in self._planned:
            yield from weight.make(self._weights.read(weight.name)).items()


def main_type(tensors: ExportedWeights) -> torch.dtype:
    """Return the type of most values, which config.json names."""
    sizes: Counter[torch.dtype] = Counter()
    for spec in tensors.specs.values():
        sizes[spec.dtype] += spec.bytes
    return sizes.most_common(1)[0][0]


def write_weights(
    tensors: ExportedWeights,
    directory: Path,
    *,
    max_shard_size: str = "5GB",
    files: Mapping[str, str] | None = None,
) -> None:
    """Write the tensors of an export, and show how far it is.

    Args:
        tensors: The tensors.
        directory: The directory to write into.
        max_shard_size: Size above which they are split over several files.
        files: The file of each; `None` splits them by size.

    Raises:
        OSError: A file cannot be written.
        CheckpointError: A weight cannot be read.
    """
    progress = ByteProgress(sum(spec.bytes for spec in tensors.specs.values()))
    files = files or split_over_files(tensors.specs, max_shard_size)
    write_files(tensors.specs, files, tensors, directory, progress.add)


def _language(model: ModelConfig, naming: Naming) -> Iterator[_Weight]:
    language, family, spelling = model.language, naming.family, naming.language
    sizes, vocabulary = sizes_of(language), vocabulary_names(language)
    names = dict(language_names(language))
    for name in names:
        declared, there = core_weight(family, name, spelling)
        shapes = dict(zip(there, declared.shapes(sizes).values(), strict=True))
        tied = name == family.body[0].core and naming.has_output and family.head.core not in names
        more = core_weight(family, family.head.core, spelling)[1] if tied else ()
        if f"{LANGUAGE}{name}" in vocabulary:
            rows, width = max(naming.rows, language.vocab_size), language.hidden_size
            shapes = dict.fromkeys((*there, *more), (rows, width))

        def make(weight: torch.Tensor, name: str = name, more: tuple[str, ...] = more) -> Tensors:
            tensors = split_parameter(name, weight, language, family, spelling)
            if f"{LANGUAGE}{name}" in vocabulary:
                tensors = {one: _with_all_rows(weight, naming.rows) for one, weight in tensors.items()}
            return tensors | {one: next(iter(tensors.values())) for one in more}

        yield _Weight(f"{LANGUAGE}{name}", shapes, make)


def _with_all_rows(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """Return a vocabulary matrix with a row for every token, including tokens that only serve transformers.

    A new row is the mean of the other rows, so its logit is never the largest, and greedy decoding never picks it.
    """
    if rows <= len(weight):
        return weight
    mean = sum(part.float().sum(0) for part in weight.split(_AT_ONCE)) / len(weight)
    assert isinstance(mean, torch.Tensor)
    return torch.cat([weight, mean.to(weight.dtype).expand(rows - len(weight), -1)])


def _vision(model: ModelConfig, naming: Naming) -> Iterator[_Weight]:
    if naming.vision is None or model.vision is None:
        return
    family = vision_family(model.vision)
    for name, shape in weight_shapes(model).items():
        if name.startswith(VISION):
            there = vision_name(name.removeprefix(VISION), naming.vision, family, naming.names)
            yield _named(name, there, shape)


def _named(name: str, there: str, shape: Shape) -> _Weight:
    return _Weight(name, {there: shape}, lambda weight: {there: weight})


def _projector(model: ModelConfig, naming: Naming) -> Iterator[_Weight]:
    if model.projector is None or model.vision is None:
        return
    shapes, layers = weight_shapes(model), model.projector.num_layers
    for number, ours in enumerate(projector_names_of(layers)):
        for name, there in zip(ours, projector_names(naming.projector, number, layers), strict=True):
            yield _named(name, there, shapes[name])
    if layers == 1 and naming.projector.endswith("multi_modal_projector."):
        # A linear projector becomes two layers without an activation; the second is an identity.
        width = model.language.hidden_size
        matrix, bias = projector_names(naming.projector, 1, 2)
        first = next(projector_names_of(layers))[1]
        yield _Weight(
            first,
            {matrix: (width, width), bias: (width,)},
            lambda weight: {matrix: torch.eye(width, dtype=weight.dtype), bias: torch.zeros_like(weight)},
        )
