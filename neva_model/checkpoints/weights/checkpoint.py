"""Reads the weights of a sharded checkpoint one at a time, whatever layout has saved it."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch

from neva_model.checkpoints.huggingface.files import TYPES
from neva_model.checkpoints.weights.names import LANGUAGE, vocabulary_names, weight_shapes
from neva_model.checkpoints.weights.pieces import read_part
from neva_recipes.config import CheckpointError, Recipe
from neva_recipes.families import language_family
from neva_recipes.families.tensors import LAYER_PREFIX, Shape
from neva_recipes.plan.origins.checkpoints import BESIDE_ADAPTERS
from neva_recipes.run_directory.names import INFORMATION_FILE
from neva_recipes.storage.checkpoints import next_best, read_record
from neva_recipes.storage.digests import wrong_file
from neva_recipes.storage.tensors import OPTIMIZER, CheckpointTensor, checkpoint_tensors

__all__ = ["CheckpointWeights", "StoredWeights", "all_stored", "stored_names"]

_AVERAGE = "average."
"""What the names of the averages of weights begin with."""

_PREFIX = re.compile(rf"({re.escape(_AVERAGE)}|{re.escape(OPTIMIZER)}state\.\w+\.)?")
"""What stands before the name of a weight; of the optimizer also the name of what it keeps of each weight."""


def stored_names(recipe: Recipe) -> dict[str, tuple[str, int | None]]:
    """Return under which names a checkpoint holds the weights of a recipe's model, and the number of the layer.

    Equal layers are one tensor there, with the layers as the first dimension.
    """
    family = language_family(recipe.model.language)
    names: dict[str, tuple[str, int | None]] = {}
    for name in weight_shapes(recipe.model):
        names[name] = name, None
        if name.startswith(f"{LANGUAGE}{LAYER_PREFIX}"):
            weight, layer = family.weight(name.removeprefix(LANGUAGE))
            # Core gives a norm the name that it has with Transformer Engine, whoever has saved it.
            names[name] = f"{LANGUAGE}{LAYER_PREFIX}{weight.fused or weight.core}", layer
    return names


class StoredWeights:
    """What a checkpoint holds for each weight: its values, or the average or a state of the optimizer.

    Nothing in its files is run.
    """

    def __init__(self, checkpoint: Path, recipe: Recipe, places: Mapping[str, tuple[str, CheckpointTensor]]) -> None:
        """Check the tensors.

        Args:
            checkpoint: A complete checkpoint.
            recipe: The recipe that it was saved with.
            places: For each weight the tensor that is read for it, and its name there.

        Raises:
            CheckpointError: A tensor is of another shape than the weight.
        """
        self._checkpoint, self._places = checkpoint, dict(places)
        self._layers = {name: layer for name, (_, layer) in stored_names(recipe).items()}
        self._rows, self._num_layers = vocabulary_names(recipe.model.language), recipe.model.language.num_layers
        self._shapes = weight_shapes(recipe.model)
        for name in places:
            self._require_shape(name)

    @property
    def names(self) -> Collection[str]:
        """The names of the weights."""
        return self._places.keys()

    @property
    def files(self) -> set[str]:
        """The names of the files that hold them."""
        return {piece.file for _, tensor in self._places.values() for piece in tensor.pieces}

    def _require_shape(self, name: str) -> None:
        (there, tensor), layer, shape = self._places[name], self._layers[name], self._shapes[name]
        held = tensor.shape if layer is None else tensor.shape[1:]
        # The vocabulary is padded.
        padded = name in self._rows and held[1:] == shape[1:] and held[0] >= shape[0]
        if (held != shape and not padded) or (layer is not None and tensor.shape[0] != self._num_layers):
            raise CheckpointError(
                f"{self._checkpoint}: {there} has shape {list(tensor.shape)}, its recipe needs {list(shape)}"
                + ("" if layer is None else f" in each of {self._num_layers} layers")
            )
        if tensor.dtype not in TYPES:
            raise CheckpointError(
                f"{self._checkpoint}: {there} is of type {tensor.dtype}, expected {', '.join(TYPES)}: it cannot be "
                "read without the library that made it"
            )

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a weight."""
        return TYPES[self._places[name][1].dtype]

    def read(self, name: str) -> torch.Tensor:
        """Return a weight, put together from the pieces that ranks have saved, without rows that pad the vocabulary.

        Raises:
            CheckpointError: Its file is damaged.
        """
        (there, tensor), layer, shape = self._places[name], self._layers[name], self._shapes[name]
        rest: Shape = (0,) * len(shape)
        if layer is None:
            return read_part(self._checkpoint, there, tensor, rest, shape)
        return read_part(self._checkpoint, there, tensor, (layer, *rest), (1, *shape))[0]


class CheckpointWeights(StoredWeights):
    """The weights of one checkpoint; averaged ones where it has them.

    A checkpoint of a model with adapters holds only the parts whose own weights are trained.
    """

    def __init__(self, checkpoint: Path, recipe: Recipe) -> None:
        """Find the weights of a recipe's model, and check the files that hold them.

        Args:
            checkpoint: A complete checkpoint.
            recipe: The recipe that it was saved with.

        Raises:
            CheckpointError: A file is missing or damaged, or a weight is missing or of another shape.
        """
        stored = checkpoint_tensors(checkpoint)
        places = {}
        for name, (there, _) in stored_names(recipe).items():
            if recipe.model.is_saved_in_part and not getattr(recipe.model, name.partition(".")[0]).trains_weights:
                continue
            there = f"{_AVERAGE}{there}" if f"{_AVERAGE}{there}" in stored else there
            if there not in stored:
                raise CheckpointError(f"{checkpoint}: has no tensor {there}, which its recipe needs")
            places[name] = there, stored[there]
        super().__init__(checkpoint, recipe, places)
        _require_files(checkpoint, self.files)


def all_stored(checkpoint: Path, recipe: Recipe) -> dict[str, StoredWeights]:
    """Return everything that a checkpoint holds for weights, by what stands before their names there.

    Nothing stands before the names of the weights themselves. All files with tensors are checked.

    Args:
        checkpoint: A complete checkpoint.
        recipe: The recipe that it was saved with.

    Raises:
        CheckpointError: A file is missing or damaged, a weight is missing, or a tensor belongs to no weight or is of
            another shape.
    """
    if recipe.model.is_saved_in_part:
        raise CheckpointError(f"{checkpoint}: {BESIDE_ADAPTERS}")
    stored, weights = checkpoint_tensors(checkpoint), stored_names(recipe)
    names = {there for there, _ in weights.values()}
    found: dict[str, dict[str, CheckpointTensor]] = {"": {}}
    for whole, tensor in stored.items():
        prefix = _prefix_of(whole)
        if whole.removeprefix(prefix) not in names:
            raise CheckpointError(f"{checkpoint}: holds the tensor {whole}, which belongs to no weight of its recipe")
        found.setdefault(prefix, {})[whole.removeprefix(prefix)] = tensor
    if lacking := sorted(names - found[""].keys()):
        raise CheckpointError(f"{checkpoint}: has no tensor {lacking[0]}, which its recipe needs")
    states = {
        prefix: StoredWeights(checkpoint, recipe, dict(_placed(prefix, tensors, weights)))
        for prefix, tensors in found.items()
    }
    _require_files(checkpoint, {file for state in states.values() for file in state.files})
    return states


def _prefix_of(name: str) -> str:
    match = _PREFIX.match(name)
    assert match is not None  # it may be empty
    return match[0]


def _placed(
    prefix: str, tensors: Mapping[str, CheckpointTensor], weights: Mapping[str, tuple[str, int | None]]
) -> Iterator[tuple[str, tuple[str, CheckpointTensor]]]:
    for name, (there, _) in weights.items():
        if there in tensors:
            yield name, (f"{prefix}{there}", tensors[there])


def _require_files(checkpoint: Path, files: Collection[str]) -> None:
    digests = read_record(checkpoint)["digests"]
    known = {name: digests[name] for name in sorted(files) if name in digests}
    if problem := wrong_file(checkpoint, known, INFORMATION_FILE):
        raise CheckpointError(f"{problem}; {next_best(checkpoint)}")
