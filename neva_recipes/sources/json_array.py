"""A JSON array of samples, of any size, read one sample at a time."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from neva_recipes.config import DataError, PlainTable, how_many
from neva_recipes.sources.content import SAVE_AS_UTF8, open_content

__all__ = ["scan_json_array"]

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_KEY = re.compile(r'\s*,?\s*"(?P<key>[^"\\]*)"\s*:\s*(?P<value>(?P<array>\[\s*\{)?)')
"""A key of an object with what follows it, and whether that is an array of objects."""

_TURNS = ("conversations", "messages")
"""Keys of samples that hold arrays of objects."""

_COCO = (
    "COCO's format, with images and annotations apart: join them by image_id, and write a sample for each image, "
    '{"image": FILE_NAME, "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": CAPTION}]}'
)

_TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".ods")

_WINDOW = 8 * 2**20
"""Bytes read at a time; a record may be longer."""


def scan_json_array(path: Path) -> Iterator[tuple[int, int, PlainTable]]:
    """Yield byte offset, byte length and value of every object of a JSON array.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or is not an array of objects; the message names the place.
    """
    with open_content(path) as file:
        yield from _ArrayScanner(path, file).records()


class _ArrayScanner:
    """Decodes a window of the file at a time and keeps track of its position in the file."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._position = 0
        self._offset = 0
        self._at_end = False
        self._count = 0

    def records(self) -> Iterator[tuple[int, int, PlainTable]]:
        if self._next_character() == "\ufeff" and self._offset == 0:
            self._advance(1)
        if self._next_character() != "[":
            expected = "expected a JSON array of samples, beginning with ["
            key, is_coco = self._array_key()
            if is_coco:
                raise self._error(f"{expected}, and this is {_COCO}")
            if key is not None:
                raise self._error(f"{expected}, as in the key {key!r:.60}: write that array alone into the file")
            if self._path.suffix.lower() in _TABLES:
                raise self._error(f"{expected}: a table is not read as it is; docs/small_data.md makes samples of one")
            raise self._error(f"{expected} (for one sample a line, use .jsonl)")
        self._advance(1)
        if self._next_character() == "]":
            self._advance(1)
        else:
            separator = ","
            while separator == ",":
                yield self._record()
                separator = self._next_character()
                if separator not in (",", "]"):
                    raise self._error("expected , or ]" if separator else "the file ends before the ] of the array")
                self._advance(1)
        if self._next_character():
            raise self._error("expected nothing after the ] of the array")

    def _array_key(self) -> tuple[str | None, bool]:
        """Look at the object at this place, unless it is a sample itself.

        Returns:
            The first key that holds an array of objects, and whether the object is COCO's.
        """
        position, found = self._position + 1, None
        try:
            while (named := _KEY.match(self._text, position)) and self._text[self._position] == "{":
                if named["array"]:
                    if named["key"] in _TURNS:
                        return found, False
                    found = str(named["key"]) if found is None else found
                    first, _ = self._json.raw_decode(self._text, named.end() - 1)
                    if _is_coco(named["key"], first):
                        return found, True
                _, position = self._json.raw_decode(self._text, named.start("value"))
        except (ValueError, IndexError, RecursionError):
            pass  # the object is broken, or longer than the window
        return found, False

    def _record(self) -> tuple[int, int, PlainTable]:
        if self._next_character() != "{":
            raise self._error("expected a sample beginning with {")
        while True:
            try:
                record, end = self._json.raw_decode(self._text, self._position)
                break
            except json.JSONDecodeError as error:
                # A record cut off by the window fails at the end of the text, or at the start of a string.
                unterminated = error.msg.startswith("Unterminated string")
                if not self._at_end and (unterminated or error.pos >= len(self._text) - 16):
                    self._read_more()
                    continue
                if unterminated or error.pos >= len(self._text.rstrip()):
                    raise self._error("the file ends inside of a sample: it is truncated") from None
                self._advance(error.pos - self._position)
                raise self._error(f"not valid JSON: {error.msg}") from None
            except (ValueError, RecursionError) as error:
                raise self._error(f"not valid JSON: {error}") from None
        offset = self._offset
        self._advance(end - self._position)
        self._count += 1
        return offset, self._offset - offset, record

    def _next_character(self) -> str:
        """Skip white space; return the character after it, or an empty string at the end of the file."""
        while True:
            match = _WHITESPACE.match(self._text, self._position)
            assert match is not None
            self._advance(match.end() - self._position)
            if self._position < len(self._text):
                return self._text[self._position]
            if self._at_end:
                return ""
            self._read_more()

    def _advance(self, characters: int) -> None:
        end = self._position + characters
        passed = self._text[self._position : end]
        self._offset += len(passed) if passed.isascii() else len(passed.encode())
        self._position = end

    def _read_more(self) -> None:
        """Append the next window, at least as long as the rest of the text, so that a long record costs linear time."""
        remaining = self._text[self._position :]
        data = self._file.read(max(_WINDOW, len(remaining)))
        self._at_end = not data
        try:
            self._text = remaining + self._utf8.decode(data, final=self._at_end)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 text: {error.reason}: {SAVE_AS_UTF8}") from None
        self._position = 0

    def _error(self, reason: str) -> DataError:
        return DataError(f"{self._path}: after {how_many(self._count, 'sample')}, at byte {self._offset}: {reason}")


def _is_coco(key: str, first: PlainTable) -> bool:
    """Return whether an array of objects is of COCO's annotations, by its key and its first object.

    The annotations of VQA, which answer questions in another file, have an `image_id` too.
    """
    if key == "images":
        return "id" in first and ("file_name" in first or "coco_url" in first)
    return key == "annotations" and "image_id" in first and "question_id" not in first
