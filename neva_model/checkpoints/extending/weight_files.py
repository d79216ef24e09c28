"""Copies safetensors files while some of their matrices get new rows; no tensor is held in memory."""

import json
import math
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from neva_model.checkpoints.huggingface.safetensors_files import INDEX_FILE, SINGLE_FILE, read_header, write_header
from neva_recipes.config import CheckpointError, PlainTable
from neva_recipes.plan.huggingface import read_object
from neva_recipes.storage.whole import copy_file, reading_errors

__all__ = ["LongerMatrix", "copy_weights"]

_PIECE = 2**22
"""Bytes that are copied at once."""


@dataclass(frozen=True)
class LongerMatrix:
    """A matrix that gets new rows.

    Attributes:
        rows: Number of its rows afterwards; at least as many as before.
        new: The rows that change or are added, by their numbers; every added one is among them.
    """

    rows: int
    new: Mapping[int, torch.Tensor]


def copy_weights(files: Collection[Path], target: Path, matrices: Mapping[str, LongerMatrix]) -> None:
    """Copy the safetensors files of a model, and their index if there are several.

    Args:
        files: The files; others beside them, which no library would read, are left.
        target: The directory to copy into.
        matrices: The matrices that change, by the names of their tensors.

    Raises:
        OSError: A file cannot be read or written.
    """
    for file in sorted(files):
        _copy(file, target / file.name, matrices)
    source = next(iter(files)).parent / INDEX_FILE
    if source.is_file() and all(file.name != SINGLE_FILE for file in files):
        index = read_object(source, "an index of weight files")
        before, after = _sizes(files), _sizes(target / file.name for file in files)
        for name, old, new in zip(("total_parameters", "total_size"), before, after, strict=True):
            # What an index counts beyond the tensors, such as weights that are tied, stays.
            if isinstance(count := (index.get("metadata") or {}).get(name), int):
                index["metadata"][name] = count + new - old
        (target / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _copy(file: Path, target: Path, matrices: Mapping[str, LongerMatrix]) -> None:
    with file.open("rb") as reading:
        header, first = read_header(reading)
        if not matrices.keys() & header.keys():
            copy_file(file, target)
            return
        longer, order = _longer_header(header, matrices)
        with target.open("wb") as writing:
            write_header(writing, longer)
            for name in order:
                begin, end = header[name]["data_offsets"]
                reading.seek(first + begin)
                start = writing.tell()
                _copy_bytes(reading, file, writing, end - begin)
                if name in matrices:
                    _write_rows(writing, start, (end - begin) // header[name]["shape"][0], matrices[name])
    shutil.copymode(file, target)


def _sizes(files: Iterable[Path]) -> tuple[int, int]:
    """Return the numbers of values and of bytes in some files."""
    values = size = 0
    for file in files:
        with file.open("rb") as reading:
            header, _ = read_header(reading)
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        values += sum(math.prod(entry["shape"]) for entry in entries)
        size += sum(map(_bytes, entries))
    return values, size


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


def _copy_bytes(reading: BinaryIO, file: Path, writing: BinaryIO, count: int) -> None:
    while count > 0:
        with reading_errors(file):
            piece = reading.read(min(count, _PIECE))
        if not piece:
            raise CheckpointError(f"{file}: ends before its last tensor; fetch it again")
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
