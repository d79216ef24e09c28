"""Writes a checkpoint that any layout can load, one weight at a time."""

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from neva_model.checkpoints.weights.checkpoint import stored_names
from neva_model.checkpoints.weights.names import Weights, vocabulary_names, weight_shapes
from neva_recipes.config import Recipe

__all__ = ["write_checkpoint"]

_TABLE = ".metadata"
_FILE = "__0_{}.distcp"
"""The name that torch's writer gives to the files of the first rank."""

_FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
"""What Core writes beside it (`CheckpointingConfig`); its import would take longer than a small model does."""

_FILE_BYTES = 4 * 2**30
"""Size from which on a new file is begun: readers check several at a time."""


@dataclass
class _Tensor:
    """A tensor that is being written.

    Attributes:
        dtype: Its type.
        shape: Its shape.
        chunks: Where the pieces that have been written begin in it, and their sizes.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: list[ChunkStorageMetadata]


def write_checkpoint(weights: Weights, recipe: Recipe, folder: Path, written: Callable[[int], None]) -> None:
    """Write the tensors of a checkpoint as one process without an optimizer would save them.

    torch's own writer holds every tensor until its file is complete, so the format is written here, with its classes.

    Args:
        weights: The weights.
        recipe: The recipe of the model.
        folder: The folder to write into.
        written: Told the bytes of each weight that has been written.

    Raises:
        OSError: A file cannot be written.
        CheckpointError: A weight cannot be read.
    """
    names, tensors = stored_names(recipe), _tensors(weights, recipe)
    places: dict[MetadataIndex, _StorageInfo] = {}
    number, file = 0, (folder / _FILE.format(0)).open("wb")
    try:
        for name, (there, layer) in names.items():
            tensor = tensors[there]
            if file.tell() >= _FILE_BYTES:
                file.close()
                number += 1
                file = (folder / _FILE.format(number)).open("wb")
            values = weights.read(name).to(tensor.dtype)
            for first, piece in _pieces(values, tensor, layer):
                chunk = ChunkStorageMetadata(torch.Size(first), piece.shape)
                begin = file.tell()
                _save(_alone(piece), file)
                info = _StorageInfo(_FILE.format(number), begin, file.tell() - begin)
                places[MetadataIndex(there, chunk.offsets, len(tensor.chunks))] = info
                tensor.chunks.append(chunk)
            written(values.numel() * values.itemsize)
    finally:
        file.close()
    _write_table(tensors, places, folder)
    torch.save({}, folder / "common.pt")
    (folder / "metadata.json").write_text(json.dumps(_FORMAT), encoding="utf-8")


def _tensors(weights: Weights, recipe: Recipe) -> dict[str, _Tensor]:
    """Return the tensors that there will be; equal layers are one, of the widest of their types."""
    language = recipe.model.language
    shapes, vocabulary = weight_shapes(recipe.model), vocabulary_names(language)
    tensors: dict[str, _Tensor] = {}
    for name, (there, layer) in stored_names(recipe).items():
        shape, dtype = shapes[name], weights.dtype(name)
        if name in vocabulary:
            shape = language.padded_vocab_size(1), *shape[1:]
        if layer is not None:
            shape = language.num_layers, *shape
        known = tensors.setdefault(there, _Tensor(dtype, shape, []))
        known.dtype = torch.promote_types(known.dtype, dtype)
    return tensors


def _pieces(values: torch.Tensor, tensor: _Tensor, layer: int | None) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
    """Yield the pieces of a tensor that a weight is, and where they begin in it."""
    if layer is not None:
        yield (layer, *(0 for _ in values.shape)), values[None]
        return
    rest = (0,) * (values.dim() - 1)
    yield (0, *rest), values
    if padding := tensor.shape[0] - len(values):
        yield (len(values), *rest), values.new_zeros(padding, *values.shape[1:])


def _alone(values: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose storage, which `torch.save` writes whole, holds nothing else."""
    values = values.contiguous()
    return values.clone() if values.untyped_storage().nbytes() > values.numel() * values.itemsize else values


def _save(values: torch.Tensor, file: BinaryIO) -> None:
    try:
        torch.save(values, file)
    except RuntimeError as error:
        # After an error of the file torch fails once more, over the end of what it has begun.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _write_table(tensors: dict[str, _Tensor], places: dict[MetadataIndex, _StorageInfo], folder: Path) -> None:
    table = Metadata(
        {
            name: TensorStorageMetadata(TensorProperties(tensor.dtype), torch.Size(tensor.shape), tensor.chunks)
            for name, tensor in tensors.items()
        },
        storage_data=places,
    )
    with (folder / _TABLE).open("wb") as file:
        pickle.dump(table, file)
