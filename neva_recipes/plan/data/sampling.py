"""Records from all over a data file of any size, without reading it whole.

A large file is read in windows of equal size at places spread over it. Each window yields the records that begin in it,
so every record is equally likely to be taken, however long it is; taking the record after a random place would favour
records that follow long ones. A compressed file can only be read from the beginning, so only the beginning of a large
one is sampled.
"""

import codecs
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from neva_recipes.config import DataError
from neva_recipes.prompts.samples import has_turns
from neva_recipes.sources.content import open_part

__all__ = ["FileSample", "array_records", "is_cut_line", "line_records", "sample_file", "spread"]

_SMALL = 16 * 2**20
"""Bytes up to which a file, or several together, is read whole, and bytes that are unpacked of a larger one."""

_WINDOWS = 64
_SMALLEST_WINDOW, _LARGEST_WINDOW = 4 * 2**10, 128 * 2**10
_TAIL = 2**16
"""Bytes read after a window for the record that begins at its end; if they are too few, as many again."""

_LONGEST_RECORD = 16 * 2**20


_Find = Callable[[BinaryIO, int, int], Iterator[bytes]]
"""Yields the records of a file that begin within a number of bytes after an offset."""


@dataclass(frozen=True)
class FileSample:
    """Some records of a file.

    Attributes:
        records: The bytes of each record.
        total: Number of records of the whole file.
        exact: Whether the total was counted; otherwise it is an estimate.
        from_begin: Whether the records are only from the beginning of the file.
    """

    records: list[bytes]
    total: int
    exact: bool
    from_begin: bool


def sample_file(path: Path, count: int, *, lines: bool, files: int = 1) -> FileSample:
    """Return about `count` records from all over a file.

    Args:
        path: The file.
        count: Records wanted.
        lines: Whether a record is a line that is not blank; otherwise it is an object of a JSON array, with turns.
        files: Number of files that share the bytes that may be read whole.

    Raises:
        DataError: The file cannot be read, is not an array as expected, or no record is found.
    """
    find = line_records if lines else array_records
    small = max(_SMALL // files, _WINDOWS * _SMALLEST_WINDOW)
    with open_part(path, small) as (file, size, total, is_whole):
        if not lines and _begin(file) != b"[":
            raise DataError(
                f"{path}: no sample found, as it is not an array"
            )  # of JSON lines, the first would be taken for all records
        if not is_whole:
            # The rest completes the last record of the part.
            part = size // 4
            records = list(find(file, 0, part))
            estimate = round(len(records) * total / part)
            sample = FileSample(spread(records, count), estimate, exact=False, from_begin=True)
        elif size <= small:
            records = list(find(file, 0, size))
            sample = FileSample(spread(records, count), len(records), exact=True, from_begin=False)
        else:
            probe = sum(1 for _ in _windows(file, find, size, _SMALLEST_WINDOW))
            share = count / probe if probe else _LARGEST_WINDOW / _SMALLEST_WINDOW
            window = min(max(int(share * _SMALLEST_WINDOW), _SMALLEST_WINDOW), _LARGEST_WINDOW, size // _WINDOWS)
            records = list(_windows(file, find, size, window))
            estimate = round(len(records) * size / (_WINDOWS * window))
            sample = FileSample(records, estimate, exact=False, from_begin=False)
    if not sample.records:
        raise DataError(f"{path}: no sample found")
    return sample


def _begin(file: BinaryIO) -> bytes:
    """Return the first byte of a file that is not white space or a byte order mark."""
    return file.read(_TAIL).removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def spread(records: list[bytes], count: int) -> list[bytes]:
    """Return `count` records evenly spread over the given ones, or all if there are fewer."""
    if len(records) <= count:
        return records
    return [records[number * len(records) // count] for number in range(count)]


def _windows(file: BinaryIO, find: _Find, size: int, window: int) -> Iterator[bytes]:
    """Yield the records that begin in windows spread over a file of `size` bytes; the windows are always the same."""
    draw, stratum = random.Random(0), size / _WINDOWS
    for number in range(_WINDOWS):
        yield from find(file, int(stratum * number + draw.random() * (stratum - window)), window)


def line_records(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    """Yield the lines that are not blank and begin in the `length` bytes after `offset`; a very long line is cut."""
    file.seek(max(offset - 1, 0))
    position = file.tell()
    if offset:
        position += len(file.readline(_LONGEST_RECORD))
    while position < offset + length and (line := file.readline(_LONGEST_RECORD)):
        position += len(line)
        if line.strip():
            yield line


def is_cut_line(line: bytes) -> bool:
    """Return whether `line_records` has cut this line."""
    return len(line) == _LONGEST_RECORD and not line.endswith(b"\n")


def array_records(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    """Yield the objects of a JSON array that begin in the `length` bytes after `offset`, up to where it is broken.

    The first object is recognised by its list of turns, which objects inside a record do not have.
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
    """A part of a file as text with one character for each byte, since the structure of JSON is ASCII."""

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
            if decoded is not None and has_turns(decoded[1]):
                return start
            # A whole turn of a record that the window cuts is skipped.
            position = decoded[0] if decoded is not None else start + 1
        return None

    def next_record(self, position: int) -> int | None:
        """Return where the record after the one ending at `position` begins; `None` if the array ends or breaks."""
        comma = self._next(r"\S", position)
        if comma is None or self.text[comma] != ",":
            return None
        start = self._next(r"\S", comma + 1)
        return start if start is not None and self.text[start] == "{" else None

    def decode(self, start: int) -> tuple[int, dict[str, object]] | None:
        """Return the end and the value of the object that begins at `start`; `None` if it is not complete."""
        while True:
            try:
                value, end = self._json.raw_decode(self.text, start)
                return end, value
            except json.JSONDecodeError as error:
                # An object that is cut off here fails at the end of the text, or at the start of a string.
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
