"""Copies safetensors files while some of their matrices get new rows; no tensor is held in memory."""

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from neva_recipes.config import PlainTable

__all__ = ["LongerMatrix", "copy_weights"]

_PIECE = 2**22
"""Bytes that are copied at once."""

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class LongerMatrix:
    """A matrix that gets new rows.

    Attributes:
        rows: Number of its rows afterwards; at least as many as before.
        new: The rows that change or are added, by their numbers; every added one is among them.
    """

    rows: int
    new: Mapping[int, torch.Tensor]


def copy_weights(source: Path, target: Path, matrices: Mapping[str, LongerMatrix]) -> None:
    """Copy the safetensors files of a directory and their index.

    Args:
        source: The directory.
        target: The directory to copy into.
        matrices: The matrices that change, by the names of their tensors.

    Raises:
        OSError: A file cannot be read or written.
    """
    grown = sum(_copy(file, target / file.name, matrices) for file in sorted(source.glob("*.safetensors")))
    if (source / _INDEX).is_file():
        index = json.loads((source / _INDEX).read_text(encoding="utf-8"))
        if isinstance(size := (index.get("metadata") or {}).get("total_size"), int):
            index["metadata"]["total_size"] = size + grown
        (target / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _copy(file: Path, target: Path, matrices: Mapping[str, LongerMatrix]) -> int:
    """Copy a file and return how many bytes its tensors have grown by."""
    with file.open("rb") as reading:
        (length,) = struct.unpack("<Q", reading.read(8))
        header = json.loads(reading.read(length))
        if not matrices.keys() & header.keys():
            shutil.copyfile(file, target)
            return 0
        longer, order = _longer_header(header, matrices)
        text = json.dumps(longer, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
        with target.open("wb") as writing:
            writing.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                begin, end = header[name]["data_offsets"]
                reading.seek(8 + length + begin)
                start = writing.tell()
                _copy_bytes(reading, writing, end - begin)
                if name in matrices:
                    _write_rows(writing, start, (end - begin) // header[name]["shape"][0], matrices[name])
    shutil.copymode(file, target)
    return sum(_bytes(longer[name]) - _bytes(header[name]) for name in order)


def _longer_header(header: PlainTable, matrices: Mapping[str, LongerMatrix]) -> tuple[PlainTable, list[str]]:
    """Return the header with the new shapes and places, and the names of the tensors in the order of their places."""
    order = sorted((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    longer, end = dict(header), 0
    for name in order:
        shape, size = header[name]["shape"], _bytes(header[name])
        if name in matrices:
            size = size // shape[0] * matrices[name].rows
            shape = [matrices[name].rows, *shape[1:]]
        longer[name] = {**header[name], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return longer, order


def _bytes(entry: PlainTable) -> int:
    begin, end = entry["data_offsets"]
    return int(end - begin)


def _copy_bytes(reading: BinaryIO, writing: BinaryIO, count: int) -> None:
    while count > 0:
        piece = reading.read(min(count, _PIECE))
        if not piece:
            raise OSError(0, "the file ends before its last tensor")
        writing.write(piece)
        count -= len(piece)


def _write_rows(writing: BinaryIO, start: int, width: int, matrix: LongerMatrix) -> None:
    """Write new rows into a matrix that has just been copied, and leave the file behind its last row.

    Args:
        writing: The file.
        start: Where the matrix begins.
        width: Bytes of a row.
        matrix: The matrix.
    """
    for number, row in matrix.new.items():
        writing.seek(start + number * width)
        writing.write(row.contiguous().view(torch.uint8).numpy().tobytes())
    writing.seek(start + matrix.rows * width)
