"""Safetensors files, written one tensor at a time; none is held in memory."""

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from huggingface_hub import split_state_dict_into_shards_factory

from neva_model.checkpoints.huggingface.files import TYPES
from neva_recipes.config import PlainTable

__all__ = ["INDEX_FILE", "SINGLE_FILE", "TensorSpec", "read_header", "split_over_files", "write_files", "write_header"]

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"

_WORDS = {dtype: word for word, dtype in TYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """What a file says of a tensor before its values.

    Attributes:
        dtype: Its type.
        shape: Its shape.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The bytes that its values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(reading: BinaryIO) -> tuple[PlainTable, int]:
    """Return the header of a file that is being read from its beginning, and the byte at which the values begin."""
    (length,) = struct.unpack("<Q", reading.read(8))
    return json.loads(reading.read(length)), 8 + length


def write_header(writing: BinaryIO, header: PlainTable) -> int:
    """Write the header of a file, and return the byte at which the values begin."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    writing.write(struct.pack("<Q", len(text)) + text)
    return 8 + len(text)


def split_over_files(specs: Mapping[str, TensorSpec], max_shard_size: str) -> dict[str, str]:
    """Return the name of the file for each tensor, as `save_pretrained` of transformers would split them.

    Args:
        specs: The tensors, in their order.
        max_shard_size: Size above which there are several files.
    """
    split = split_state_dict_into_shards_factory(
        dict(specs),
        get_storage_size=lambda spec: spec.bytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    return {name: file for file, names in split.filename_to_tensors.items() for name in names}


def write_files(
    specs: Mapping[str, TensorSpec],
    files: Mapping[str, str],
    tensors: Iterable[tuple[str, torch.Tensor]],
    directory: Path,
    written: Callable[[int], None],
) -> None:
    """Write tensors, and an index if they lie in several files.

    Args:
        specs: What each tensor is.
        files: The name of the file for each.
        tensors: The tensors with their names, each once, in any order.
        directory: The directory to write into.
        written: Told the bytes of each tensor that has been written.

    Raises:
        OSError: A file cannot be written.
    """
    places = _write_headers(specs, files, directory)
    left = set(specs)
    for name, tensor in tensors:
        spec = specs[name]
        assert name in left and tuple(tensor.shape) == spec.shape, f"{name} is not as announced"
        left.remove(name)
        values = tensor.detach().to(device="cpu", dtype=spec.dtype).contiguous().flatten()
        with (directory / files[name]).open("r+b") as writing:
            writing.seek(places[name])
            writing.write(values.view(torch.uint8).numpy().data)
        written(spec.bytes)
    assert not left, f"{min(left)} has not been written"
    if set(files.values()) != {SINGLE_FILE}:
        index = {"metadata": {"total_size": sum(spec.bytes for spec in specs.values())}, "weight_map": dict(files)}
        (directory / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_headers(specs: Mapping[str, TensorSpec], files: Mapping[str, str], directory: Path) -> dict[str, int]:
    """Write the beginning of each file, and return the byte at which each tensor begins in its file."""
    places: dict[str, int] = {}
    for file in dict.fromkeys(files.values()):
        header: PlainTable = {"__metadata__": {"format": "pt"}}
        # The wide types first, as safetensors itself does: so each value lies at a multiple of its width.
        inside = sorted((name for name in specs if files[name] == file), key=lambda name: -specs[name].dtype.itemsize)
        end = 0
        for name in inside:
            begin, end = end, end + specs[name].bytes
            word, shape = _WORDS[specs[name].dtype], list(specs[name].shape)
            header[name] = {"dtype": word, "shape": shape, "data_offsets": [begin, end]}
        with (directory / file).open("wb") as writing:
            first = write_header(writing, header)
        places |= {name: first + header[name]["data_offsets"][0] for name in inside}
    return places
