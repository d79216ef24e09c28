"""Reads the weights of Hugging Face directories one at a time, as the model of a recipe has them."""

from pathlib import Path
from typing import Literal

import torch

from neva_model.checkpoints.huggingface.files import TYPES, WeightFiles
from neva_model.checkpoints.huggingface.language import LanguageReader
from neva_model.checkpoints.weights.names import (
    LANGUAGE,
    PROJECTOR,
    VISION,
    Weights,
    projector_names_of,
    vocabulary_names,
)
from neva_recipes.config import Recipe
from neva_recipes.families import language_family
from neva_recipes.plan.huggingface import Directory, core_weight, open_directory, projector_names

__all__ = ["DirectoryWeights", "part_of_directory"]


class DirectoryWeights:
    """The weights of a model whose parts all start from Hugging Face directories.

    The recipe is one that `recipe_from_huggingface` has made, so everything it needs is there.
    """

    def __init__(self, directory: Directory, recipe: Recipe) -> None:
        """Find the weights; nothing is read yet.

        Args:
            directory: The directory of language model and projector.
            recipe: The recipe made from it.
        """
        rows = recipe.model.language.vocab_size
        self._parts: dict[str, Weights] = {LANGUAGE: _LanguagePart(directory, recipe, rows, range(0))}
        if recipe.model.projector is None or recipe.model.vision is None:
            return
        self._parts[PROJECTOR] = _ProjectorPart(directory, recipe)
        source = recipe.model.vision.source
        assert source is not None
        # The original LLaVA leaves the tower in a directory of its own.
        towers = directory if Path(source) == directory.path else open_directory(Path(source), thorough=True)
        self._parts[VISION] = _VisionPart(towers)

    def _part(self, name: str) -> Weights:
        return self._parts[f"{name.partition('.')[0]}."]

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a weight; the widest one if it is made of tensors of several types."""
        return self._part(name).dtype(name)

    def read(self, name: str) -> torch.Tensor:
        """Return a weight.

        Raises:
            CheckpointError: Its file is damaged.
        """
        return self._part(name).read(name)


def part_of_directory(
    directory: Directory, recipe: Recipe, part: Literal["language", "vision", "projector"], rows: int, new_tokens: range
) -> Weights:
    """Return the weights of one part of a recipe's model that a directory has.

    Args:
        directory: The directory.
        recipe: The recipe, which agrees with it.
        part: The part.
        rows: Rows of the directory's vocabulary.
        new_tokens: Tokens of the recipe's model that the directory lacks.
    """
    if part == "language":
        return _LanguagePart(directory, recipe, rows, new_tokens)
    return _VisionPart(directory) if part == "vision" else _ProjectorPart(directory, recipe)


class _LanguagePart:
    def __init__(self, directory: Directory, recipe: Recipe, rows: int, new_tokens: range) -> None:
        language, spelling = recipe.model.language, directory.language_spelling
        assert spelling is not None
        self._files, self._spelling, self._family = WeightFiles(directory), spelling, language_family(language)
        self._vocabulary, self._rows = language.vocab_size, vocabulary_names(language)
        self._reader = LanguageReader(self._files, spelling, language, rows, new_tokens=new_tokens, rank=0, size=1)

    def dtype(self, name: str) -> torch.dtype:
        tensors = core_weight(self._family, name.removeprefix(LANGUAGE), self._spelling)[1]
        widest = TYPES[self._files.dtype(tensors[0])]
        for tensor in tensors[1:]:
            widest = torch.promote_types(widest, TYPES[self._files.dtype(tensor)])
        return widest

    def read(self, name: str) -> torch.Tensor:
        values = self._reader.read(name.removeprefix(LANGUAGE))
        return values[: self._vocabulary] if name in self._rows else values


class _ProjectorPart:
    def __init__(self, directory: Directory, recipe: Recipe) -> None:
        assert recipe.model.projector is not None
        self._files, self._names = WeightFiles(directory), dict[str, str]()
        there, layers = directory.projector_spelling or "", recipe.model.projector.num_layers
        for number, ours in enumerate(projector_names_of(layers)):
            self._names |= zip(ours, projector_names(there, number, layers), strict=True)

    def dtype(self, name: str) -> torch.dtype:
        return TYPES[self._files.dtype(self._names[name])]

    def read(self, name: str) -> torch.Tensor:
        weight: torch.Tensor = self._files.read(self._names[name])
        return weight


class _VisionPart:
    def __init__(self, directory: Directory) -> None:
        self._directory, self._files = directory, WeightFiles(directory)

    def _tensor(self, name: str) -> str:
        return self._directory.vision_tensor(name.removeprefix(VISION))

    def dtype(self, name: str) -> torch.dtype:
        return TYPES[self._files.dtype(self._tensor(name))]

    def read(self, name: str) -> torch.Tensor:
        weight: torch.Tensor = self._files.read(self._tensor(name))
        return weight
