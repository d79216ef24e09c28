"""What a package declares so that data files of its format can be used everywhere."""

import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO

__all__ = ["DataSource", "JsonLines"]

_TOGETHER = 64
"""Records that are taken at a time."""


@dataclass(frozen=True)
class DataSource:
    """A format of data files.

    Attributes:
        name: Its name, for messages.
        endings: Endings of its files in small letters, such as `.csv`; the product reads those of `.json`, `.jsonl` and
            `.txt` itself. A file of it may be compressed with gzip or zstd, with or without a further
            `.gz` or `.zst`.
        records: Yields the records of a file that is open for reading at its beginning, in the order of the file:
            samples in LLaVA's form, or documents with a `text`. It raises `DataError` if the file cannot be used.
    """

    name: str
    endings: tuple[str, ...]
    records: Callable[[BinaryIO], Iterable[Mapping[str, Any]]]


class JsonLines(io.RawIOBase):
    """Records as a file of JSON lines that is read from its beginning."""

    def __init__(
        self, records: Iterator[Mapping[str, object]], watched: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Make the file.

        Args:
            records: The records; they are taken when they are read.
            watched: Makes the context in which records are taken, which tells of mistakes in the code behind them.
        """
        self._records = records
        self._watched = watched
        self._rest = b""

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, which need not become full."""
        if not self._rest:
            with self._watched():
                some = itertools.islice(self._records, _TOGETHER)
                self._rest = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in some)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
