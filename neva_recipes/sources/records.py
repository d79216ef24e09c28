"""Reads data files of any size one record at a time, whatever their format.

Offsets and lengths refer to the content, which for a compressed file is the unpacked content, and for a file that a
package reads its records as JSON lines.
"""

from collections.abc import Iterator
from pathlib import Path

from neva_recipes.config import DataError, PlainTable, empty_cell
from neva_recipes.sources.content import SAVE_AS_UTF8, open_content
from neva_recipes.sources.json_array import scan_json_array
from neva_recipes.sources.json_lines import is_json_lines, scan_json_lines
from neva_recipes.sources.registry import plain_name

__all__ = ["looks_like_json", "require_no_json", "scan_samples", "scan_texts"]

_BEGIN = 2**16
"""Bytes of a text that tell whether it is JSON."""

_CONVERSATIONS = ("conversations", "messages")


def looks_like_json(path: Path) -> bool:
    """Return whether a file begins as a JSON array or object with strings does.

    Raises:
        DataError: The file cannot be read.
    """
    with open_content(path) as file:
        begin = file.read(_BEGIN).decode("utf-8-sig", errors="ignore")
    return begin.lstrip()[:1] in ("[", "{") and '"' in begin


def scan_samples(path: Path) -> Iterator[tuple[int, int, PlainTable]]:
    """Yield byte offset, byte length and value of every sample: one per line if the file ends in .jsonl, else an array.

    Raises:
        DataError: The file cannot be read, or does not have this form; the message names the place.
    """
    return scan_json_lines(path) if is_json_lines(path) else scan_json_array(path)


def scan_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number, counted from 1, and text of every document that is not blank.

    Args:
        path: JSONL with a "text" field in each line; with another ending, one document per line. JSON is no such text
            if the ending says so too: with .txt its lines are documents.

    Raises:
        DataError: The file cannot be read, or does not have this form; the message names the place.
    """
    if is_json_lines(path):
        for number, (_, _, record) in enumerate(scan_json_lines(path), start=1):
            text = record.get("text")
            if not isinstance(text, str):
                raise DataError(f'{path}: document {number} has no "text" that is a string{_instead(record)}')
            if text.strip():
                yield number, text
        return
    require_no_json(path)
    with open_content(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                document = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: line {number} is not UTF-8 text: {error.reason}: {SAVE_AS_UTF8}") from None
            if document.strip():
                yield number, document


def require_no_json(path: Path) -> None:
    """Refuse a file that would be read as lines of text, and is JSON by its ending and its content.

    Raises:
        DataError: It is, or cannot be read.
    """
    if plain_name(path).endswith(".json") and looks_like_json(path):
        raise DataError(
            f'{path}: is JSON, expected text: write JSONL with a "text" field in each line, or rename JSON lines to '
            ".jsonl; conversations are trained with llava.pretrain and llava.finetune; with the ending .txt the lines "
            "are trained on as they are, brackets and all"
        )


def _instead(record: dict[str, object]) -> str:
    """Return what to do with a record that is no text; empty if it is none that is known."""
    if "text" in record and (cell := empty_cell(record["text"])):
        return f": it is {cell}; write the text, or leave the line out"
    named = next((name for name in _CONVERSATIONS if isinstance(record.get(name), list)), None)
    return "" if named is None else f"; it has {named}, on which llava.pretrain and llava.finetune train"
