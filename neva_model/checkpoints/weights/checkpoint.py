"""Reads the weights of a sharded checkpoint one at a time, whatever layout has saved it."""

import io
import math
import pickle
from pathlib import Path
from typing import IO, BinaryIO, cast

import torch

from neva_model.checkpoints.huggingface.files import TYPES
from neva_model.checkpoints.weights.names import LANGUAGE, vocabulary_names, weight_shapes
from neva_recipes.config import CheckpointError, Recipe
from neva_recipes.families import language_family
from neva_recipes.families.tensors import LAYER_PREFIX
from neva_recipes.run_directory.names import INFORMATION_FILE
from neva_recipes.storage.checkpoints import next_best, read_record
from neva_recipes.storage.digests import wrong_file
from neva_recipes.storage.tensors import CheckpointTensor, TensorPiece, checkpoint_tensors

__all__ = ["CheckpointWeights", "stored_names"]

_AVERAGE = "average."


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


class CheckpointWeights:
    """The weights of one checkpoint; averaged ones where it has them. Nothing in its files is run."""

    def __init__(self, checkpoint: Path, recipe: Recipe) -> None:
        """Find the weights of a recipe's model, and check the files that hold them.

        Args:
            checkpoint: A complete checkpoint.
            recipe: The recipe that it was saved with.

        Raises:
            CheckpointError: A file is missing or damaged, or a weight is missing or of another shape.
        """
        self._checkpoint, self._vocabulary = checkpoint, recipe.model.language.vocab_size
        stored = checkpoint_tensors(checkpoint)
        self._places: dict[str, tuple[str, CheckpointTensor, int | None]] = {}
        names, shapes = stored_names(recipe), weight_shapes(recipe.model)
        self._rows = vocabulary_names(recipe.model.language)
        for name, (there, layer) in names.items():
            there = f"{_AVERAGE}{there}" if f"{_AVERAGE}{there}" in stored else there
            if there not in stored:
                raise CheckpointError(f"{checkpoint}: has no tensor {there}, which its recipe needs")
            self._places[name] = there, stored[there], layer
            self._require_shape(name, shapes[name])
        self._require_files()

    def _require_shape(self, name: str, shape: tuple[int, ...]) -> None:
        there, tensor, layer = self._places[name]
        held = tensor.shape if layer is None else tensor.shape[1:]
        # The vocabulary is padded.
        padded = name in self._rows and held[1:] == shape[1:] and held[0] >= shape[0]
        if (held != shape and not padded) or (layer is not None and layer >= tensor.shape[0]):
            raise CheckpointError(
                f"{self._checkpoint}: {there} has shape {list(tensor.shape)}, its recipe needs {list(shape)}"
                + ("" if layer is None else f" in layer {layer}")
            )
        if tensor.dtype not in TYPES:
            raise CheckpointError(
                f"{self._checkpoint}: {there} is of type {tensor.dtype}, expected {', '.join(TYPES)}: it cannot be "
                "read without the library that made it"
            )

    def _require_files(self) -> None:
        files = {piece.file for _, tensor, _ in self._places.values() for piece in tensor.pieces}
        digests = read_record(self._checkpoint)["digests"]
        known = {name: digests[name] for name in sorted(files) if name in digests}
        if problem := wrong_file(self._checkpoint, known, INFORMATION_FILE):
            raise CheckpointError(f"{problem}; {next_best(self._checkpoint)}")

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a weight."""
        return TYPES[self._places[name][1].dtype]

    def read(self, name: str) -> torch.Tensor:
        """Return a weight, put together from the pieces that ranks have saved.

        Raises:
            CheckpointError: Its file is damaged.
        """
        there, tensor, layer = self._places[name]
        shape = tensor.shape if layer is None else tensor.shape[1:]
        whole, filled = None, 0
        for piece in tensor.pieces:
            if layer is not None and not piece.first[0] <= layer < piece.first[0] + piece.shape[0]:
                continue
            values, first = self._load(there, piece, self.dtype(name)), piece.first
            if layer is not None:
                values, first = values[layer - first[0]], first[1:]
            if values.shape == shape:
                return self._without_padding(name, values)
            whole = torch.empty(shape, dtype=values.dtype) if whole is None else whole
            whole[tuple(slice(begin, begin + size) for begin, size in zip(first, values.shape, strict=True))] = values
            filled += values.numel()
        if whole is None or filled != math.prod(shape):
            raise CheckpointError(f"{self._checkpoint}: {there} is not all there")
        return self._without_padding(name, whole)

    def _without_padding(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return values[: self._vocabulary] if name in self._rows else values

    def _load(self, there: str, piece: TensorPiece, dtype: torch.dtype) -> torch.Tensor:
        path = self._checkpoint / piece.file
        try:
            with path.open("rb") as file:
                values = torch.load(cast(IO[bytes], _Window(file, *piece.place)), map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:120]
            raise CheckpointError(f"{path}: {there} cannot be read: {reason}") from None
        if not isinstance(values, torch.Tensor) or values.shape != piece.shape or values.dtype != dtype:
            raise CheckpointError(f"{path}: {there} is not what the table of the checkpoint says")
        return values


class _Window(io.RawIOBase):
    """A part of a file, as a file of its own."""

    def __init__(self, file: BinaryIO, begin: int, length: int) -> None:
        self._file, self._begin, self._length, self._at = file, begin, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        room = memoryview(buffer).cast("B")[: max(0, self._length - self._at)]
        self._file.seek(self._begin + self._at)
        count = self._file.readinto(room)  # type: ignore[attr-defined]
        self._at += count
        return int(count)
