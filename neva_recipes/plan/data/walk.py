"""Walks over the records of a data file of any size, for as long as there is time."""

import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

from neva_recipes.config import DataError, PlainTable
from neva_recipes.plan.data.sampling import array_records, is_cut_line, line_records
from neva_recipes.sources.content import is_made, open_part
from neva_recipes.sources.json_lines import is_json_lines, parse_line
from neva_recipes.sources.records import scan_samples

__all__ = ["Walk"]

_WINDOW = 64 * 2**10
"""Bytes of a larger file that are read at a time. The first ones always are, and their records have numbers."""

_Scanned = Iterator[tuple[int, tuple[int, int, PlainTable]]]
"""The number of each record, its offset and length, and the record."""


class Walk:
    """Walks over a file and reaches every part of it, in larger steps the less time there is.

    A content that is made, such as that of a compressed file, is read from its beginning, as far as time allows.

    Attributes:
        seen: Number of records passed.
        is_whole: Whether every record was passed.
    """

    def __init__(self, path: Path, size: int, deadline: float, small: float) -> None:
        """Prepare a walk.

        Args:
            path: A JSON array, or JSON lines.
            size: Its size in bytes.
            deadline: When to stop, as `time.perf_counter` counts.
            small: Bytes up to which every record of a file that can be read anywhere is read, whatever time it takes.
        """
        self._path = path
        self._size = size
        self._deadline = deadline
        self._small = small
        self._passed = 0
        self.seen = 0
        self.is_whole = False

    def records(self) -> Iterator[tuple[str, PlainTable]]:
        """Yield the name of each record for messages, and the record.

        Raises:
            DataError: The file cannot be read, or does not have this form.
        """
        for named in self._records():
            self.seen += 1
            yield named

    def _records(self) -> Iterator[tuple[str, PlainTable]]:
        from_begin = is_made(self._path)
        scanned = enumerate(scan_samples(self._path))
        if self._size <= self._small and not from_begin:
            yield from ((f"sample {number}", record) for number, (*_, record) in scanned)
            self.is_whole = True
        elif from_begin:
            yield from self._from_begin(scanned)
        else:
            yield from self._all_over(scanned)

    def _from_begin(self, scanned: _Scanned) -> Iterator[tuple[str, PlainTable]]:
        with open_part(self._path, max(_WINDOW, int(self._small))) as part:
            self._size = part.total
        for number, (offset, _, record) in scanned:
            self._passed = offset
            if not part.is_whole and offset >= _WINDOW and time.perf_counter() > self._deadline:
                return
            yield f"sample {number}", record
        self.is_whole = True

    def _all_over(self, scanned: _Scanned) -> Iterator[tuple[str, PlainTable]]:
        first = itertools.takewhile(lambda entry: entry[1][0] < _WINDOW, scanned)
        yield from ((f"sample {number}", record) for number, (*_, record) in first)
        self._passed = _WINDOW
        # Lines are found wherever they begin; of an array, a window may hold records that are not recognised.
        sees_all = is_json_lines(self._path)
        find = line_records if sees_all else array_records
        count = -(-self._size // _WINDOW)
        step = _stride(count)
        try:
            with self._path.open("rb") as file:
                for turn in range(1, count):
                    if time.perf_counter() > self._deadline:
                        return
                    offset = turn * step % count * _WINDOW
                    for data in find(file, offset, _WINDOW):
                        record = self._parse(data, offset)
                        if record is None:
                            sees_all = False
                        else:
                            yield _name(record, offset), record
                    self._passed += _WINDOW
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read: {error.strerror}") from None
        self.is_whole = sees_all

    def _parse(self, data: bytes, offset: int) -> PlainTable | None:
        """Return a record near an offset; `None` if it can only be understood by reading from the beginning."""
        if is_json_lines(self._path):
            return None if is_cut_line(data) else parse_line(data, f"{self._path}: a line near byte {offset:,}")
        try:
            record = json.loads(data)
        except (ValueError, RecursionError):
            return None
        assert isinstance(record, dict)
        return record

    def estimate(self) -> int:
        """Return about how many records the file has."""
        return self.seen if self.is_whole else max(self.seen, round(self.seen * self._size / self._passed))


def _name(record: dict[str, object], offset: int) -> str:
    identity = record.get("id")
    return f"a sample near byte {offset:,}" if identity is None else f"the sample with id {identity!r:.60}"


def _stride(count: int) -> int:
    """Return a step that visits all of `count` places, evenly spread at any time: near the golden section."""
    step = max(1, round(count * 0.618))
    while math.gcd(step, count) > 1:
        step += 1
    return step
