"""Walking through data files of any size: a JSON array, JSONL, or plain text, one record at a time."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from neva_recipes.config import DataError

__all__ = ["scan_json_array", "scan_json_lines", "scan_samples", "scan_texts"]

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_WINDOW = 8 * 2**20
"""Bytes read at a time; a record may be longer."""


def scan_json_array(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield byte offset, byte length and value of every object of a JSON array.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or is not an array of objects; with the place.
    """
    try:
        with path.open("rb") as file:
            yield from _ArrayScanner(path, file).records()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def scan_json_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield byte offset, byte length and value of every line that is not blank.

    Raises:
        DataError: The file cannot be read, or a line is not a JSON object in UTF-8.
    """
    try:
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                    except (ValueError, RecursionError) as error:
                        raise DataError(f"{path}: line {number} is not valid JSON: {error}") from None
                    if not isinstance(record, dict):
                        raise DataError(f"{path}: line {number} is not a JSON object")
                    yield offset, len(line), record
                offset += len(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def scan_samples(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield byte offset, byte length and value of every sample: one a line with the ending .jsonl, else of an array.

    Raises:
        DataError: The file cannot be read, or is not of that form; with the place.
    """
    return scan_json_lines(path) if path.suffix == ".jsonl" else scan_json_array(path)


def scan_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of every document that is not blank.

    Args:
        path: JSONL with a "text" field in each line, or with another ending a document a line.

    Raises:
        DataError: The file cannot be read, or is not of that form; with the place.
    """
    if path.suffix == ".jsonl":
        for number, (_, _, record) in enumerate(scan_json_lines(path), start=1):
            text = record.get("text")
            if not isinstance(text, str):
                raise DataError(f'{path}: document {number} has no "text" that is a string')
            if text.strip():
                yield number, text
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    document = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
                except UnicodeDecodeError as error:
                    raise DataError(f"{path}: line {number} is not UTF-8 text: {error.reason}") from None
                if document.strip():
                    yield number, document
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


class _ArrayScanner:
    """Decodes a window of the file at a time and keeps count of where in the file it stands."""

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

    def records(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        if self._next_character() == "\ufeff" and self._offset == 0:
            self._advance(1)
        if self._next_character() != "[":
            raise self._error("expected a JSON array of samples, beginning with [ (for one sample a line, use .jsonl)")
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

    def _record(self) -> tuple[int, int, dict[str, Any]]:
        if self._next_character() != "{":
            raise self._error("expected a sample beginning with {")
        while True:
            try:
                record, end = self._json.raw_decode(self._text, self._position)
                break
            except json.JSONDecodeError as error:
                # A record cut off by the window fails where the text ends, or at the begin of a string.
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
        """Append the next window, as long as what is left, so that a long record costs linear time."""
        remaining = self._text[self._position :]
        data = self._file.read(max(_WINDOW, len(remaining)))
        self._at_end = not data
        try:
            self._text = remaining + self._utf8.decode(data, final=self._at_end)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 text: {error.reason}") from None
        self._position = 0

    def _error(self, reason: str) -> DataError:
        return DataError(f"{self._path}: after {self._count} samples, at byte {self._offset}: {reason}")
