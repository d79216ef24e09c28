"""Reads data files as batches of records: where possible as places in a file, which cost nothing to hand over."""

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError, PlainTable
from neva_recipes.sources.content import is_made
from neva_recipes.sources.records import scan_samples

__all__ = ["Batch", "batches_of", "content_of", "record_at", "records_of"]

_BYTES = 2**20
"""Bytes of a batch: large enough that handing it over costs little, small enough for the memory of many processes."""


class Batch(NamedTuple):
    """Records that stand behind each other in a file.

    Attributes:
        file: The number of the file among those that are read.
        path: The file.
        first: The number of the first record, from 0.
        begin: Where the bytes begin: behind the record before.
        offsets: Where each record begins.
        lengths: Its bytes.
        records: The records, where the content of the file is made while it is read; else they are read again.
    """

    file: int
    path: Path
    first: int
    begin: int
    offsets: Sequence[int]
    lengths: Sequence[int]
    records: Sequence[PlainTable] | None

    @property
    def end(self) -> int:
        """Where the bytes end."""
        return self.offsets[-1] + self.lengths[-1]


def batches_of(file: int, path: Path) -> Iterator[Batch]:
    """Yield the records of a file.

    Args:
        file: Its number among those that are read.
        path: A JSON array, or JSON lines.

    Raises:
        DataError: The file cannot be read, has no record, or does not have the form of a data file.
    """
    made = is_made(path)
    first = begin = 0
    offsets, lengths, records = array("Q"), array("Q"), list[PlainTable]()
    for offset, length, record in scan_samples(path):
        offsets.append(offset)
        lengths.append(length)
        if made:
            records.append(record)
        if offset + length - begin >= _BYTES:
            yield Batch(file, path, first, begin, offsets, lengths, records if made else None)
            first, begin = first + len(offsets), offset + length
            offsets, lengths, records = array("Q"), array("Q"), []
    if not first and not offsets:
        raise DataError(f"{path}: has no samples")
    if offsets:
        yield Batch(file, path, first, begin, offsets, lengths, records if made else None)


def records_of(batch: Batch, data: bytes) -> Iterator[tuple[PlainTable, int | None]]:
    """Yield each record, and how many lines the batch has before it; `None` if that is unknown.

    Args:
        batch: The batch.
        data: Its content.

    Raises:
        DataError: The file has changed since.
    """
    if batch.records is not None:
        yield from ((record, None) for record in batch.records)
        return
    lines = place = 0
    for offset, length in zip(batch.offsets, batch.lengths, strict=True):
        start = offset - batch.begin
        lines += data.count(b"\n", place, start)
        place = start
        yield _parsed(batch.path, data[start : start + length]), lines


def record_at(path: Path, offset: int, length: int) -> PlainTable:
    """Return a record of a file that can be read at any place.

    Raises:
        DataError: The file has changed since, or cannot be read.
    """
    batch = Batch(0, path, 0, offset, [offset], [length], None)
    return next(records_of(batch, content_of(batch)))[0]


def content_of(batch: Batch) -> bytes:
    """Return the bytes of a batch; none if it holds its records.

    Raises:
        DataError: The file has changed since, or cannot be read.
    """
    if batch.records is not None:
        return b""
    try:
        with batch.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), batch.end - batch.begin, batch.begin)
    except OSError as error:
        raise DataError(f"{batch.path}: cannot be read: {error.strerror}") from None
    if len(data) != batch.end - batch.begin:
        raise _changed(batch.path)
    return data


def _parsed(path: Path, data: bytes) -> PlainTable:
    try:
        record = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise _changed(path) from None
    if not isinstance(record, dict):
        raise _changed(path)
    return record


def _changed(path: Path) -> DataError:
    return DataError(f"{path}: has changed while it was checked: check it again")
