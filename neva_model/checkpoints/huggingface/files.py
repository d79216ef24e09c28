"""Reads the weights of a Hugging Face directory by tensor and by slice."""

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from neva_recipes.config import CheckpointError
from neva_recipes.plan.huggingface import Directory, StoredTensor
from neva_recipes.storage.exports import require_exported_file

__all__ = ["TYPES", "WeightFiles"]

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The types that weights can have, by their names in safetensors."""


class WeightFiles:
    """The tensors of one directory, in safetensors or PyTorch files, in one file or in shards.

    `compare_part` has checked that they exist and have the recipe's shapes. Nothing is read before it is asked for, and
    then only the requested slice. One file is open at a time, so that no more than one is ever mapped into memory.
    """

    def __init__(self, directory: Directory) -> None:
        """Store where the tensors of an open directory are."""
        self._directory = directory
        self._open: tuple[Path, Any] | None = None
        self._checked: set[Path] = set()

    def _tensors(self, file: Path) -> Any:
        self._require_whole(file)
        if self._open is None or self._open[0] != file:
            self._open = None
            with _reading(file):
                self._open = file, _open_safetensors(file) if file.suffix == ".safetensors" else _open_torch(file)
        return self._open[1]

    def _require_whole(self, file: Path) -> None:
        if file not in self._checked:
            require_exported_file(file)
            self._checked.add(file)

    @property
    def description(self) -> str:
        """The number and kind of the files, as text."""
        files = {tensor.file for tensor in self._directory.tensors.values()}
        return f"{len(files)} {next(iter(files)).suffix[1:]} file{'s' if len(files) > 1 else ''}"

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._directory.tensors[name].shape

    def dtype(self, name: str) -> str:
        """Return the type of a tensor, as safetensors spells it."""
        return self._directory.tensors[name].dtype

    def read(self, name: str, rows: slice | None = None, columns: slice | None = None) -> Any:
        """Return a tensor or a part of it, in the precision of the file.

        Args:
            name: Name of the tensor.
            rows: Part of the first dimension; `None` means all of it.
            columns: Part of the second dimension; `None` means all of it.

        Raises:
            CheckpointError: Its file is damaged.
        """
        stored = self._directory.tensors[name]
        if stored.file.suffix == ".safetensors" and columns is None and stored.shape:
            self._require_whole(stored.file)
            with _reading(stored.file):
                return _read_rows(stored, *(rows or slice(None)).indices(stored.shape[0])[:2])
        part = self._tensors(stored.file).get_slice(name)
        if rows is None and columns is None:
            return part[:]
        return part[rows or slice(None), columns or slice(None)] if len(self.shape(name)) > 1 else part[rows]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        if code := re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", str(error)):
            message = f"holds code beside its tensors ({code[1]}), which is never run; get the weights as safetensors"
            raise CheckpointError(f"{file}: {message}") from None
        if isinstance(error, OSError) and error.errno is not None:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{file}: is damaged or incomplete ({reason}); fetch it again") from None


def _read_rows(stored: StoredTensor, begin: int, end: int) -> torch.Tensor:
    """Return rows of a tensor of a safetensors file, read into memory of their own rather than mapped.

    Args:
        stored: The tensor.
        begin: The first of its rows.
        end: The row after the last one.

    Raises:
        OSError: They cannot be read.
    """
    rows = torch.empty((max(end - begin, 0), *stored.shape[1:]), dtype=TYPES[stored.dtype])
    content = rows.view(-1).view(torch.uint8).numpy().data
    with stored.file.open("rb", buffering=0) as file:
        file.seek(int(stored.place[0]) + begin * (len(content) // max(len(rows), 1)))
        done = 0
        while done < len(content):  # Linux reads at most 2 GiB at once
            count = file.readinto(content[done:])
            if not count:
                raise EOFError("it ends before its last tensor")
            done += count
    return rows


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
