"""Reads the weights of a Hugging Face directory by tensor and by slice."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from neva_recipes.config import CheckpointError
from neva_recipes.plan.huggingface import Directory
from neva_recipes.storage.exports import require_exported_file

__all__ = ["WeightFiles"]


class WeightFiles:
    """The tensors of one directory, in safetensors or PyTorch files, in one file or in shards.

    `compare_part` has checked that they exist and have the recipe's shapes. Nothing is read before it is asked for, and
    then only the requested slice.
    """

    def __init__(self, directory: Directory) -> None:
        """Store where the tensors of an open directory are."""
        self._directory = directory
        self._open: dict[Path, Any] = {}

    def _tensors(self, file: Path) -> Any:
        if file not in self._open:
            require_exported_file(file)
            try:
                self._open[file] = _open_safetensors(file) if file.suffix == ".safetensors" else _open_torch(file)
            except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
                reason = " ".join(str(error).split())[:120]
                raise CheckpointError(f"{file}: is damaged or incomplete ({reason}); fetch it again") from None
        return self._open[file]

    @property
    def description(self) -> str:
        """The number and kind of the files, as text."""
        files = {tensor.file for tensor in self._directory.tensors.values()}
        return f"{len(files)} {next(iter(files)).suffix[1:]} file{'s' if len(files) > 1 else ''}"

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._directory.tensors[name].shape

    def read(self, name: str, rows: slice | None = None, columns: slice | None = None) -> Any:
        """Return a tensor or a part of it, in the precision of the file.

        Args:
            name: Name of the tensor.
            rows: Part of the first dimension; `None` means all of it.
            columns: Part of the second dimension; `None` means all of it.

        Raises:
            CheckpointError: Its file is damaged.
        """
        part = self._tensors(self._directory.tensors[name].file).get_slice(name)
        if rows is None and columns is None:
            return part[:]
        return part[rows or slice(None), columns or slice(None)] if len(self.shape(name)) > 1 else part[rows]


def _open_safetensors(file: Path) -> Any:
    return safe_open(str(file), framework="pt")


class _TorchFile:
    """A PyTorch file with the method of a safetensors file that is used here."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def get_slice(self, name: str) -> torch.Tensor:
        return self._tensors[name]


def _open_torch(file: Path) -> _TorchFile:
    return _TorchFile(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
