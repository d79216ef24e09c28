"""Writes a checkpoint as ranks of a layout would, one weight at a time; any layout can load it."""

import json
import pickle
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from neva_model.checkpoints.weights.checkpoint import stored_names
from neva_model.checkpoints.weights.cutting import Cut, Share
from neva_model.checkpoints.weights.names import LANGUAGE, Weights, vocabulary_names, weight_shapes
from neva_recipes.config import Recipe
from neva_recipes.families.tensors import LAYER_PREFIX

__all__ = ["VALUES_FILE", "Written", "write_checkpoint", "write_without_values"]

VALUES_FILE = "common.pt"
"""The file of a checkpoint with the values that are no tensors."""

_TABLE = ".metadata"

_FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
"""What Core writes beside it (`CheckpointingConfig`); its import would take longer than a small model does."""

_FILE_BYTES = 4 * 2**30
"""Size from which on a new file is begun: readers check several at a time."""

_OF_LAYER = re.compile(rf"{re.escape(LANGUAGE + LAYER_PREFIX)}.*/shard_(\d+)_\d+")


@dataclass(frozen=True)
class Written:
    """What is written for each weight: its values, or something else of its shape.

    Attributes:
        weights: Reads it.
        names: The weights that have it.
        prefix: What stands before the names of the weights in the checkpoint.
        more_rows: Rows of the vocabulary that come behind those that are read, by the name of the weight.
    """

    weights: Weights
    names: Collection[str]
    prefix: str = ""
    more_rows: Mapping[str, torch.Tensor] = field(default_factory=dict)


def write_checkpoint(
    parts: Collection[Written],
    recipe: Recipe,
    folder: Path,
    written: Callable[[int], None],
    objects: Mapping[str, Callable[[], bytes]] | None = None,
) -> None:
    """Write the tensors of a checkpoint as the ranks of a layout would save them.

    Args:
        parts: What is written for the weights.
        recipe: The recipe of the model, with the layout.
        folder: The folder to write into.
        written: Told the bytes of each weight that has been written.
        objects: Reads what is no tensor, by its name.

    Raises:
        OSError: A file cannot be written.
        CheckpointError: A weight cannot be read.
    """
    cut, files = Cut(recipe), _Files(folder)
    tensors = {part.prefix: _tensors(part, recipe) for part in parts}
    vocabulary = vocabulary_names(recipe.model.language)
    for name, (there, layer) in stored_names(recipe).items():
        for part in (part for part in parts if name in part.names):
            tensor = tensors[part.prefix][there]
            blocks = _blocks(part, name, tensor, is_vocabulary=name in vocabulary)
            size = sum(block.nbytes for block in blocks[:2])  # but for padding
            for share in cut.shares(name):
                for first, piece in _pieces(blocks, share):
                    files.write(f"{part.prefix}{there}", tensor, share.rank, first, piece, layer)
            del blocks, piece  # before the next weight is read
            written(size)
    for name, read in (objects or {}).items():
        files.write_object(name, read(), cut.rank_of_layer(layer) if (layer := _layer_of(name)) is not None else 0)
    files.write_table({f"{prefix}{name}": tensor for prefix, some in tensors.items() for name, tensor in some.items()})


def write_without_values(folder: Path) -> None:
    """Write that a checkpoint has nothing but tensors, and of what format it is.

    Raises:
        OSError: A file cannot be written.
    """
    torch.save({}, folder / VALUES_FILE)
    (folder / "metadata.json").write_text(json.dumps(_FORMAT), encoding="utf-8")


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


class _Files:
    """The files of a checkpoint.

    torch's own writer holds every tensor until its file is complete, so the format is written here, with its classes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[int, int] = {}
        self._places: dict[MetadataIndex, _StorageInfo] = {}
        self._objects: list[str] = []

    def write(
        self, name: str, tensor: _Tensor, rank: int, first: tuple[int, ...], piece: torch.Tensor, layer: int | None
    ) -> None:
        """Write a part of a weight; equal layers are one tensor, with the layers as the first dimension.

        Args:
            name: The name of the tensor.
            tensor: The tensor.
            rank: The rank that would save the part.
            first: Where it begins in the weight.
            piece: Its values.
            layer: The layer that the weight is in.
        """
        if layer is not None:
            first, piece = (layer, *first), piece[None]
        chunk = ChunkStorageMetadata(torch.Size(first), piece.shape)
        with self._open(rank) as file:
            begin = file.tell()
            _save(_alone(piece), file)
            info = _StorageInfo(Path(file.name).name, begin, file.tell() - begin)
        self._places[MetadataIndex(name, chunk.offsets, len(tensor.chunks))] = info
        tensor.chunks.append(chunk)

    def write_object(self, name: str, content: bytes, rank: int) -> None:
        """Write what is no tensor."""
        with self._open(rank) as file:
            info = _StorageInfo(Path(file.name).name, file.tell(), len(content))
            file.write(content)
        self._places[MetadataIndex(name)] = info
        self._objects.append(name)

    def write_table(self, tensors: Mapping[str, _Tensor]) -> None:
        """Write the table of the tensors, which makes the checkpoint complete."""
        entries: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {
            name: TensorStorageMetadata(TensorProperties(tensor.dtype), torch.Size(tensor.shape), tensor.chunks)
            for name, tensor in tensors.items()
        }
        entries |= {name: BytesStorageMetadata() for name in self._objects}
        with (self._folder / _TABLE).open("wb") as file:
            pickle.dump(Metadata(entries, storage_data=self._places), file)

    def _open(self, rank: int) -> BinaryIO:
        """Open the file that a rank is writing at its end."""
        number = self._numbers.setdefault(rank, 0)
        # Torch's writer gives such names to the files of a rank.
        file = (self._folder / f"__{rank}_{number}.distcp").open("ab")
        if file.tell() < _FILE_BYTES:
            return file
        file.close()
        self._numbers[rank] += 1
        return self._open(rank)


def _tensors(part: Written, recipe: Recipe) -> dict[str, _Tensor]:
    """Return the tensors that there will be; equal layers are one, of the widest of their types."""
    language = recipe.model.language
    shapes, vocabulary = weight_shapes(recipe.model), vocabulary_names(language)
    tensors: dict[str, _Tensor] = {}
    for name, (there, layer) in stored_names(recipe).items():
        if name not in part.names:
            continue
        shape, dtype = shapes[name], part.weights.dtype(name)
        if name in vocabulary:
            shape = language.padded_vocab_size(recipe.parallel.tensor_model_parallel_size), *shape[1:]
        if layer is not None:
            shape = language.num_layers, *shape
        known = tensors.setdefault(there, _Tensor(dtype, shape, []))
        known.dtype = torch.promote_types(known.dtype, dtype)
    return tensors


def _blocks(part: Written, name: str, tensor: _Tensor, *, is_vocabulary: bool) -> list[torch.Tensor]:
    """Return the rows of a weight, and those that come behind them in a vocabulary."""
    values = part.weights.read(name).to(tensor.dtype)
    if not is_vocabulary:
        return [values]
    more = part.more_rows.get(name, values.new_zeros(0, values.shape[1])).to(tensor.dtype)
    return [values, more, values.new_zeros(tensor.shape[0] - len(values) - len(more), values.shape[1])]


def _pieces(blocks: list[torch.Tensor], share: Share) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
    """Yield the share of a rank in a weight whose rows lie in several tensors, and where each piece of it begins.

    There is more than one piece only where a share begins with words and ends with padding: nothing is copied.
    """
    rest = tuple(slice(begin, begin + size) for begin, size in zip(share.first[1:], share.shape[1:], strict=True))
    above = 0
    for block in blocks:
        begin, end = max(share.first[0], above), min(share.first[0] + share.shape[0], above + len(block))
        if begin < end:
            yield (begin, *share.first[1:]), block[(slice(begin - above, end - above), *rest)]
        above += len(block)


def _layer_of(name: str) -> int | None:
    """Return the layer that an object belongs to: those of equal layers are numbered by the layers."""
    match = _OF_LAYER.fullmatch(name)
    return None if match is None else int(match[1])


def _alone(values: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose storage, which `torch.save` writes whole, holds nothing else; rows are not copied."""
    values = values.contiguous()
    if values.untyped_storage().nbytes() == values.nbytes:
        return values
    return torch.from_numpy(values.view(torch.uint8).numpy()).view(values.dtype)


def _save(values: torch.Tensor, file: BinaryIO) -> None:
    try:
        torch.save(values, file)
    except RuntimeError as error:
        # After an error of the file torch fails once more, over the end of what it has begun.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
