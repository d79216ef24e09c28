"""Reads the weights of a Hugging Face directory one at a time, as the model of a recipe has them."""

from pathlib import Path

import torch

from neva_model.checkpoints.huggingface.files import TYPES, WeightFiles
from neva_model.checkpoints.huggingface.language import LanguageReader
from neva_model.checkpoints.weights.names import LANGUAGE, PROJECTOR, VISION, projector_names_of, vocabulary_names
from neva_recipes.config import Recipe
from neva_recipes.families import language_family
from neva_recipes.plan.huggingface import Directory, core_weight, open_directory, projector_names

__all__ = ["DirectoryWeights"]


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
        language, projector, vision = recipe.model.language, recipe.model.projector, recipe.model.vision
        assert directory.language_spelling is not None
        self._files = WeightFiles(directory)
        self._spelling, self._family = directory.language_spelling, language_family(language)
        self._reader = LanguageReader(
            self._files, self._spelling, language, language.vocab_size, new_tokens=range(0), rank=0, size=1
        )
        self._vocabulary, self._rows = language.vocab_size, vocabulary_names(language)
        self._projector: dict[str, str] = {}
        self._tower, self._tower_files = directory, self._files
        if projector is None or vision is None:
            return
        there, layers = directory.projector_spelling or "", projector.num_layers
        for number, ours in enumerate(projector_names_of(layers)):
            self._projector |= zip(ours, projector_names(there, number, layers), strict=True)
        source = vision.source
        assert source is not None
        # The original LLaVA leaves the tower in a directory of its own.
        towers = directory if Path(source) == directory.path else open_directory(Path(source), thorough=True)
        self._tower, self._tower_files = towers, WeightFiles(towers)

    def _place(self, name: str) -> tuple[WeightFiles, tuple[str, ...]]:
        """Return the files that hold a weight, and the names of its tensors there."""
        if name.startswith(LANGUAGE):
            return self._files, core_weight(self._family, name.removeprefix(LANGUAGE), self._spelling)[1]
        if name.startswith(PROJECTOR):
            return self._files, (self._projector[name],)
        return self._tower_files, (self._tower.vision_tensor(name.removeprefix(VISION)),)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a weight; the widest one if it is made of tensors of several types."""
        files, tensors = self._place(name)
        widest = TYPES[files.dtype(tensors[0])]
        for tensor in tensors[1:]:
            widest = torch.promote_types(widest, TYPES[files.dtype(tensor)])
        return widest

    def read(self, name: str) -> torch.Tensor:
        """Return a weight.

        Raises:
            CheckpointError: Its file is damaged.
        """
        if name.startswith(LANGUAGE):
            values = self._reader.read(name.removeprefix(LANGUAGE))
            return values[: self._vocabulary] if name in self._rows else values
        files, (tensor,) = self._place(name)
        weight: torch.Tensor = files.read(tensor)
        return weight
