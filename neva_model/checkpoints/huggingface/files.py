"""The weight files of a Hugging Face directory, read tensor by tensor and slice by slice."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from neva_recipes.config import CheckpointError

__all__ = ["WeightFiles", "has_weight_files"]

_INDEXES = {"model.safetensors.index.json": "safetensors", "pytorch_model.bin.index.json": "bin"}
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin", "mm_projector.bin")


def has_weight_files(directory: Path) -> bool:
    """Whether a directory holds weights under the names that Hugging Face's libraries and LLaVA give them."""
    return any((directory / name).is_file() for name in (*_INDEXES, *_SINGLE_FILES))


class WeightFiles:
    """The tensors of one directory, in safetensors or PyTorch files, in one piece or in shards.

    Nothing is read before it is asked for, and then only the slice asked for.

    Attributes:
        directory: The directory.
    """

    def __init__(self, directory: Path) -> None:
        """Find the files and the tensors in them.

        Raises:
            CheckpointError: There are none, the index is missing or broken, or a file it names is missing or damaged.
        """
        self.directory = directory
        self._open: dict[Path, Any] = {}
        self._file_of: dict[str, Path] = {}
        for index in _INDEXES:
            if (directory / index).is_file():
                self._file_of = self._read_index(directory / index)
                break
        else:
            for name in _SINGLE_FILES:
                if (directory / name).is_file():
                    self._file_of = dict.fromkeys(self._tensors(directory / name).keys(), directory / name)
                    break
            else:
                raise CheckpointError(_no_weights(directory))

    def _read_index(self, index: Path) -> dict[str, Path]:
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            file_of = {str(name): self.directory / file for name, file in weight_map.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index}: cannot be read as an index of weight files: {error!r}") from None
        for file in sorted(set(file_of.values())):
            if not file.is_file():
                raise CheckpointError(f"{file}: is missing, but {index.name} names it; fetch the directory again")
            self._tensors(file)
        return file_of

    def _tensors(self, file: Path) -> Any:
        if file not in self._open:
            try:
                self._open[file] = _open_safetensors(file) if file.suffix == ".safetensors" else _open_torch(file)
            except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
                reason = " ".join(str(error).split())[:120]
                raise CheckpointError(f"{file}: is damaged or incomplete ({reason}); fetch it again") from None
        return self._open[file]

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._file_of)

    @property
    def description(self) -> str:
        """How many files of which kind there are."""
        files = set(self._file_of.values())
        return f"{len(files)} {next(iter(files)).suffix[1:]} file{'s' if len(files) > 1 else ''}"

    def read(self, name: str, shape: tuple[int, ...], rows: slice | None = None, columns: slice | None = None) -> Any:
        """Return a tensor or a part of it, in the precision of the file.

        Args:
            name: Name of the tensor.
            shape: Shape that the whole tensor must have.
            rows: Part of the first dimension; none means all of it.
            columns: Part of the second dimension; none means all of it.

        Raises:
            CheckpointError: There is no such tensor, it has another shape, or its file is damaged.
        """
        if name not in self._file_of:
            raise CheckpointError(f"{self.directory}: has no tensor {name}")
        file = self._file_of[name]
        tensors = self._tensors(file)
        if name not in tensors.keys():  # noqa: SIM118 - a safetensors file is no mapping
            raise CheckpointError(f"{file}: has no tensor {name}, but the index says so")
        part = tensors.get_slice(name)
        actual = tuple(part.get_shape())
        if actual != shape:
            raise CheckpointError(f"{file}: {name} has shape {list(actual)}, the recipe needs {list(shape)}")
        if rows is None and columns is None:
            return part[:]
        return part[rows or slice(None), columns or slice(None)] if len(shape) > 1 else part[rows]


def _no_weights(directory: Path) -> str:
    for index, suffix in _INDEXES.items():
        if any(directory.glob(f"*-of-*.{suffix}")):
            return f"{directory / index}: is missing, but there are shards; fetch the directory again"
    return f"{directory}: holds no weights: expected model.safetensors, pytorch_model.bin, or shards with an index"


def _open_safetensors(file: Path) -> Any:
    return safe_open(str(file), framework="pt")


class _TorchFile:
    """A PyTorch file with the methods of a safetensors file that are used here."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_slice(self, name: str) -> "_TorchSlice":
        return _TorchSlice(self._tensors[name])


class _TorchSlice:
    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        return list(self._tensor.shape)

    def __getitem__(self, part: Any) -> torch.Tensor:
        return self._tensor[part]


def _open_torch(file: Path) -> _TorchFile:
    return _TorchFile(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
