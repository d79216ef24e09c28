"""Files of prompts, which a model continues."""

from pathlib import Path

from neva_recipes.config import DataError
from neva_recipes.sources.json_lines import is_json_lines, scan_json_lines
from neva_recipes.sources.records import scan_texts

__all__ = ["PROMPT", "read_prompts"]

PROMPT = "prompt"
"""The field of JSON lines that holds a prompt, in what is read and in what is written."""


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: its lines, or the field `prompt` of JSON lines.

    Raises:
        DataError: It cannot be read, holds none, or a record has no such text.
    """
    if not is_json_lines(path):
        found = [text for _, text in scan_texts(path) if text.strip()]
    else:
        found = []
        for number, (_, _, record) in enumerate(scan_json_lines(path), start=1):
            if not isinstance(text := record.get(PROMPT), str):
                raise DataError(f'{path}: record {number} has no "{PROMPT}" that is a string')
            found.append(text)
    if not found:
        raise DataError(f"{path}: holds no prompt: expected one on each line")
    return found
