"""The text that a tokenizer is trained on or measured with, a line at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError
from neva_recipes.sources.json_lines import is_json_lines, scan_json_lines
from neva_recipes.sources.records import scan_texts

__all__ = ["TEXT_KEYS", "Line", "text_lines"]

TEXT_KEYS = ("text",)
"""The field of JSONL that holds text."""


class Line(NamedTuple):
    """A line of text that is not blank.

    Attributes:
        path: Its file.
        number: The number of its document in the file, counted from 1: the line of a text file, the record of JSONL.
        text: Its text, without the end of the line.
    """

    path: Path
    number: int
    text: str


def text_lines(files: Sequence[Path], json_keys: Sequence[str] = TEXT_KEYS) -> Iterator[Line]:
    """Yield the lines of some files.

    Args:
        files: Text, or JSONL (.jsonl); both may be compressed with gzip.
        json_keys: The fields of a record of JSONL that hold text.

    Raises:
        DataError: A file cannot be read, holds no text or a zero byte, or a record lacks a field.
    """
    for path in files:
        is_empty = True
        for number, document in _records(path, json_keys) if is_json_lines(path) else scan_texts(path):
            if "\0" in document:
                raise DataError(f"{path}: line {number} holds a zero byte: is it text?")
            for text in document.split("\n"):
                if text.strip():
                    is_empty = False
                    yield Line(path, number, text)
        if is_empty:
            raise DataError(f"{path}: holds no text: remove it, or name only the others")


def _records(path: Path, keys: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, (_, _, record) in enumerate(scan_json_lines(path), start=1):
        for key in keys:
            text = record.get(key)
            if not isinstance(text, str):
                raise DataError(f'{path}: document {number} has no "{key}" that is a string (--json-keys names others)')
            try:
                text.encode()
            except UnicodeEncodeError:
                raise DataError(f'{path}: document {number}: "{key}" holds half a surrogate pair') from None
            yield number, text
