"""Reads parts of the tensors of a checkpoint, put together from what ranks have saved. Nothing in its files is run."""

import io
import math
import pickle
from pathlib import Path
from typing import IO, BinaryIO, cast

import torch

from neva_model.checkpoints.huggingface.files import TYPES
from neva_recipes.config import CheckpointError
from neva_recipes.families.tensors import Shape
from neva_recipes.storage.tensors import CheckpointTensor, TensorPiece

__all__ = ["read_part"]


def read_part(checkpoint: Path, name: str, tensor: CheckpointTensor, first: Shape, shape: Shape) -> torch.Tensor:
    """Return a part of a tensor; a view of what a rank has saved where that holds all of it.

    Args:
        checkpoint: The checkpoint.
        name: Name of the tensor there.
        tensor: The tensor.
        first: Where the part begins, in each dimension.
        shape: The shape of the part.

    Raises:
        CheckpointError: A file is damaged, or the part is not all there.
    """
    whole, filled = None, 0
    for piece in tensor.pieces:
        begin = tuple(max(pair) for pair in zip(first, piece.first, strict=True))
        end = tuple(
            min(one + size, other + width)
            for one, size, other, width in zip(first, shape, piece.first, piece.shape, strict=True)
        )
        if any(start >= stop for start, stop in zip(begin, end, strict=True)):
            continue
        values = _load(checkpoint, name, piece, TYPES[tensor.dtype])[_slices(piece.first, begin, end)]
        if values.shape == shape:
            return values
        whole = torch.empty(shape, dtype=values.dtype) if whole is None else whole
        whole[_slices(first, begin, end)] = values
        filled += values.numel()
    if whole is None or filled != math.prod(shape):
        raise CheckpointError(f"{checkpoint}: {name} is not all there")
    return whole


def _slices(origin: Shape, begin: Shape, end: Shape) -> tuple[slice, ...]:
    return tuple(slice(low - zero, high - zero) for zero, low, high in zip(origin, begin, end, strict=True))


def _load(checkpoint: Path, name: str, piece: TensorPiece, dtype: torch.dtype) -> torch.Tensor:
    path = checkpoint / piece.file
    try:
        with path.open("rb") as file:
            values = torch.load(cast(IO[bytes], _Window(file, *piece.place)), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: {name} cannot be read: {reason}") from None
    if not isinstance(values, torch.Tensor) or values.shape != piece.shape or values.dtype != dtype:
        raise CheckpointError(f"{path}: {name} is not what the table of the checkpoint says")
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
