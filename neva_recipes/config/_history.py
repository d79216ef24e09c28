"""Where the value of a field comes from, by Fiddle's history.

Fiddle records the file and line that set a field. A value that does not come from Python code is recorded under a name
that no file has.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fiddle as fdl
from fiddle import history

from neva_recipes.secrets import mask, secret_values

__all__ = [
    "COMMAND_LINE",
    "DEFAULT_OF",
    "DERIVED",
    "PLACEHOLDER",
    "is_placeholder",
    "place_in_python",
    "replace_value",
    "replaced_values",
    "showable",
    "stands_in_a_file",
    "value_from",
]

COMMAND_LINE = "command line"
"""The source of a value that was given as `key=value`."""

PLACEHOLDER = "placeholder"
"""The source of a preliminary value, until a better one is known, such as the vocabulary size of a tokenizer."""

DERIVED = "from "
"""Start of the source of a value that was derived from another field or a run."""

DEFAULT_OF = "default of "
"""Start of the source of a value that nobody has set, with the class whose default it is."""

_OURS = str(Path(__file__).parents[1]) + os.sep

# The callers of these files are the sources that people want to know.
for _file in ("neva_recipes/config/tree.py", "neva_recipes/config/inputs.py", "neva_recipes/_assembly.py"):
    history.add_exclude_location(_file)


@contextmanager
def value_from(place: str, line: int = 0) -> Iterator[None]:
    """Record `place` as the source of every field that is set within the context.

    Args:
        place: `COMMAND_LINE`, `DEFAULT_OF` and a class, or the path of a file.
        line: Line of that file; 0 if there is none.
    """
    location = history.Location(place, line, None)
    with history.custom_location(lambda: location):
        yield


def is_placeholder(node: fdl.Buildable[Any], name: str) -> bool:
    """Return whether a field holds a preliminary value that nobody has chosen; any other value was given, and stays."""
    entries = _values_given(node, name)
    return bool(entries) and entries[-1].location.filename == PLACEHOLDER


def stands_in_a_file(node: fdl.Buildable[Any], name: str) -> bool:
    """Return whether a field has the value that a file of values gives it, rather than Python code or a default."""
    entries = _values_given(node, name)
    if not entries:
        return False
    location = entries[-1].location
    is_file = location.filename not in (COMMAND_LINE, PLACEHOLDER) and not location.filename.startswith(
        (DEFAULT_OF, DERIVED)
    )
    return is_file and location.function_name is None


def place_in_python(node: fdl.Buildable[Any], name: str) -> str:
    """Return as text where Python code of the user's has set a field to its value; empty if nothing of theirs has."""
    entries = _values_given(node, name)
    location = entries[-1].location if entries else None
    if location is None or location.function_name is None or location.filename.startswith((COMMAND_LINE, _OURS)):
        return ""
    return f" ({location.filename}, line {location.line_number})"


def replace_value(node: fdl.Buildable[Any], name: str, value: object, meaning: str) -> None:
    """Set a field to what its value stands for; a value from the command line keeps the command line as its source.

    Args:
        node: The group.
        name: The field.
        value: The new value.
        meaning: The name that the value had.
    """
    entries = _values_given(node, name)
    if entries and entries[-1].location.filename == COMMAND_LINE:
        location = history.Location(COMMAND_LINE, 0, meaning)
    else:
        location = history.Location(f"{DERIVED}{meaning}", 0, None)
    with history.custom_location(lambda: location):
        setattr(node, name, value)


def replaced_values(recipe: fdl.Buildable[Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields that were set on the command line, by dotted path, each with its value before.

    Args:
        recipe: The recipe, or a group of it.
        prefix: Path of the group and a dot; empty for the root.
    """
    replaced = {}
    for name, value in recipe.__arguments__.items():
        if isinstance(value, fdl.Buildable):
            replaced.update(replaced_values(value, f"{prefix}{name}."))
            continue
        entries = _values_given(recipe, name)
        if entries and entries[-1].location.filename == COMMAND_LINE:
            before = [entry.new_value for entry in entries if entry.location.filename != COMMAND_LINE]
            replaced[f"{prefix}{name}"] = showable(before[-1] if before else None)
    return replaced


def _values_given(node: fdl.Buildable[Any], name: str) -> list[history.HistoryEntry]:
    """Return the values that a field was set to, oldest first, as Fiddle recorded them."""
    return [e for e in node.__argument_history__.get(name, ()) if e.kind is history.ChangeKind.NEW_VALUE]


def showable(value: object) -> Any:
    """Return an unchecked value in a form that can be written and shown: plain, and without secrets."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, list):
        return [showable(item) for item in value]
    return mask(str(value), secret_values(os.environ))
