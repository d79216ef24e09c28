"""Records from all over a data file of any size, without reading it whole.

From a large file, windows of equal size are read at places spread over it, and of each window the records that begin in
it. Every record is then as likely to be taken as any other, however long it is; taking the record that follows a random
place would favour what stands behind long ones.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from neva_recipes.config import DataError

__all__ = ["FileSample", "array_records", "line_records", "sample_file"]

_SMALL = 16 * 2**20
"""Bytes of a file that is read whole."""

_WINDOWS = 64
_SMALLEST_WINDOW, _LARGEST_WINDOW = 4 * 2**10, 128 * 2**10
_TAIL = 2**16
"""Bytes read behind a window for the record that begins at its end; as many again where that is not enough."""

_LONGEST_RECORD = 16 * 2**20


_Find = Callable[[BinaryIO, int, int], Iterator[bytes]]
"""Yields the records of a file that begin within a number of bytes from an offset on."""


@dataclass(frozen=True)
class FileSample:
    """Some records of a file.

    Attributes:
        records: Their bytes.
        total: Records of the whole file.
        exact: Whether that was counted; else it is an estimate.
    """

    records: list[bytes]
    total: int
    exact: bool


def sample_file(path: Path, count: int, *, lines: bool) -> FileSample:
    """Return about `count` records from all over a file.

    Args:
        path: The file.
        count: Records wanted.
        lines: Whether a record is a line that is not blank; else an object of a JSON array, with `conversations`.

    Raises:
        DataError: The file cannot be read, or no record is found.
    """
    find = line_records if lines else array_records
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= _SMALL:
                records = list(find(file, 0, size))
                sample = FileSample(_spread(records, count), len(records), exact=True)
            else:
                probe = sum(1 for _ in _windows(file, find, size, _SMALLEST_WINDOW))
                share = count / probe if probe else _LARGEST_WINDOW / _SMALLEST_WINDOW
                window = min(max(int(share * _SMALLEST_WINDOW), _SMALLEST_WINDOW), _LARGEST_WINDOW)
                records = list(_windows(file, find, size, window))
                sample = FileSample(records, round(len(records) * size / (_WINDOWS * window)), exact=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not sample.records:
        raise DataError(f"{path}: no sample found")
    return sample


def _spread(records: list[bytes], count: int) -> list[bytes]:
    if len(records) <= count:
        return records
    return [records[number * len(records) // count] for number in range(count)]


def _windows(file: BinaryIO, find: _Find, size: int, window: int) -> Iterator[bytes]:
    """Yield the records that begin in windows spread over a file of `size` bytes, always the same ones."""
    draw, stratum = random.Random(0), size / _WINDOWS
    for number in range(_WINDOWS):
        yield from find(file, int(stratum * number + draw.random() * (stratum - window)), window)


def line_records(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    """Yield the lines, not blank, that begin within `length` bytes from `offset` on."""
    file.seek(max(offset - 1, 0))
    position = file.tell()
    if offset:
        position += len(file.readline(_LONGEST_RECORD))
    while position < offset + length and (line := file.readline(_LONGEST_RECORD)):
        position += len(line)
        if line.strip():
            yield line


def array_records(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    """Yield the objects of a JSON array that begin within `length` bytes from `offset` on, up to where it is broken.

    The first one is recognised by its list of `conversations`: what lies inside of a record has none.
    """
    window = _Window(file, offset, length)
    start = window.find_sample(length)
    while start is not None and start < length:
        record = window.decode(start)
        if record is None:
            return
        end, _ = record
        yield window.text[start:end].encode("latin-1")
        start = window.next_record(end)


class _Window:
    """A part of a file as text of which each character is one byte: the structure of JSON is ASCII."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self._file = file
        self._json = json.JSONDecoder()
        file.seek(offset)
        self.text = ""
        self._read(length + _TAIL)

    def _read(self, size: int) -> bool:
        more = self._file.read(size)
        self.text += more.decode("latin-1")
        return bool(more)

    def find_sample(self, length: int) -> int | None:
        """Return where the first record begins."""
        position = 0
        while (start := self._next(r"\{", position)) is not None and start < length:
            decoded = self.decode(start)
            if decoded is not None and isinstance(decoded[1].get("conversations"), list):
                return start
            # A turn of the record that the window cuts is passed over whole.
            position = decoded[0] if decoded is not None else start + 1
        return None

    def next_record(self, position: int) -> int | None:
        """Return where the record behind the one that ends at `position` begins; none if the array ends or breaks."""
        comma = self._next(r"\S", position)
        if comma is None or self.text[comma] != ",":
            return None
        start = self._next(r"\S", comma + 1)
        return start if start is not None and self.text[start] == "{" else None

    def decode(self, start: int) -> tuple[int, dict[str, object]] | None:
        """Return the end and the value of the object that begins at `start`; none if there is no whole one."""
        while True:
            try:
                value, end = self._json.raw_decode(self.text, start)
                return end, value
            except json.JSONDecodeError as error:
                # An object cut off by what was read fails where the text ends, or at the begin of a string.
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                if not cut or len(self.text) - start > _LONGEST_RECORD or not self._read(len(self.text)):
                    return None
            except (ValueError, RecursionError):
                return None

    def _next(self, pattern: str, position: int) -> int | None:
        while True:
            found = re.compile(pattern).search(self.text, position)
            if found is not None:
                return found.start()
            position = len(self.text)
            if not self._read(_TAIL):
                return None
