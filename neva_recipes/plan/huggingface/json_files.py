"""The JSON files of a Hugging Face directory; each holds an object."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError, PlainTable, pointer_in_place

__all__ = ["LONGEST_JSON", "image_side", "parse_object", "read_image_processor", "read_object"]

LONGEST_JSON = 100_000_000
"""The most bytes of a JSON text; the limit that safetensors has for its headers."""


def parse_object(content: bytes, *, once: bool = False) -> PlainTable:
    """Return the object in a JSON text.

    Args:
        content: The text.
        once: Whether a key must not appear twice; otherwise the last one counts.

    Raises:
        ValueError: The text is not an object, or has a key twice.
    """
    try:
        found = json.loads(content, object_pairs_hook=_without_repeats if once else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("expected an object")
    return found


def _without_repeats(pairs: list[tuple[str, object]]) -> PlainTable:
    fields: PlainTable = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"{key[:100]} is there twice")
        fields[key] = value
    return fields


def read_object(path: Path, what: str) -> PlainTable:
    """Return the object in a JSON file.

    Args:
        path: The file.
        what: The kind of file expected, for messages.

    Raises:
        CheckpointError: There is no such file, or it cannot be read.
    """
    try:
        # Reading a pipe would wait.
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing")
        if (size := path.stat().st_size) > LONGEST_JSON:
            raise ValueError(f"it has {size} bytes, expected at most {LONGEST_JSON}")
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        problem = pointer_in_place(path) or f"cannot be read as {what}: {reason}"
        raise CheckpointError(f"{path}: {problem}") from None


def read_image_processor(directory: Path) -> tuple[str, PlainTable] | None:
    """Return the name of the file with a directory's image processor settings, and the settings; `None` without any.

    Raises:
        CheckpointError: Such a file cannot be read.
    """
    # As in transformers, a group in the processor's file takes precedence over a separate file.
    for name, group in (("processor_config.json", "image_processor"), ("preprocessor_config.json", None)):
        if not (directory / name).is_file():
            continue
        fields = read_object(directory / name, "settings of a processor")
        if group is not None and group not in fields:
            continue
        found = fields[group] if group is not None else fields
        if not isinstance(found, dict):
            raise CheckpointError(f"{directory / name}: {group} is no object")
        return name, found
    return None


def image_side(settings: Mapping[str, Any], *, crops: bool) -> int | None:
    """Return the side of the images that an image processor makes; `None` if its settings do not say it.

    Args:
        settings: Its settings.
        crops: Whether it crops images, rather than scaling both sides.
    """
    if crops and settings.get("do_center_crop") is False:
        return None
    size = settings.get("crop_size" if crops else "size")
    side = size.get("height") if isinstance(size, dict) else size
    return side if isinstance(side, int) else None
