"""JSON lines: an object in each line that is not blank."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from neva_recipes.config import DataError, PlainTable
from neva_recipes.sources.content import SAVE_AS_UTF8, open_content
from neva_recipes.sources.registry import find_source, plain_name

__all__ = ["is_json_lines", "parse_line", "scan_json_lines"]


_AN_ARRAY = ": the file begins as a JSON array, and an array of samples is read from a file that ends in .json"


def is_json_lines(path: Path) -> bool:
    """Return whether the content of a file has a JSON object in each line, by its ending.

    That is .jsonl, .jsonl.gz or .jsonl.zst in any case, or an ending that a package reads.

    Raises:
        RecipeError: Several packages read files with this ending, or the package cannot be imported.
    """
    return plain_name(path).endswith(".jsonl") or find_source(path) is not None


def scan_json_lines(path: Path) -> Iterator[tuple[int, int, PlainTable]]:
    """Yield byte offset, byte length and value of every line that is not blank.

    Raises:
        DataError: The file cannot be read, or a line is not a JSON object in UTF-8.
    """
    with open_content(path) as file:
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.strip():
                begin = codecs.BOM_UTF8 if number == 1 else b""
                where = f"{path}: line {number}"
                try:
                    record = parse_line(line.removeprefix(begin), where)
                except DataError as error:
                    is_array = not offset and line.removeprefix(begin).lstrip().startswith(b"[")
                    raise DataError(f"{error}{_AN_ARRAY if is_array else ''}") from None
                yield offset, len(line), record
            offset += len(line)


def parse_line(line: bytes, where: str) -> PlainTable:
    """Return the record of a line.

    Args:
        line: A line that is not blank, without a byte order mark.
        where: The place of the line, for an error.

    Raises:
        DataError: The line is not a JSON object in UTF-8.
    """
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not valid JSON: not UTF-8 text: {error.reason}: {SAVE_AS_UTF8}") from None
    except json.JSONDecodeError as error:  # its own line number counts within this line
        raise DataError(f"{where} is not valid JSON: {error.msg} at column {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{where} is not a JSON object")
    return record
