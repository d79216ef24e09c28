"""Where the value of a field comes from, as Fiddle's history keeps it.

Fiddle notes the file and line that set a field. What comes from elsewhere than Python code is noted under a name that
no file has.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fiddle as fdl
from fiddle import history

from neva_recipes.secrets import mask, secret_values

__all__ = ["COMMAND_LINE", "replaced_values", "showable", "value_from"]

COMMAND_LINE = "command line"
"""The place of a value that was given as `key=value`."""

# Who called these is what people want to know.
for _file in ("neva_recipes/config/tree.py", "neva_recipes/config/inputs.py", "neva_recipes/_assembly.py"):
    history.add_exclude_location(_file)


@contextmanager
def value_from(place: str, line: int = 0) -> Iterator[None]:
    """Note `place` as the source of every field that is set meanwhile.

    Args:
        place: `COMMAND_LINE`, `default of CLASS`, or the path of a file.
        line: Line of that file; 0 where there are none.
    """
    location = history.Location(place, line, None)
    with history.custom_location(lambda: location):
        yield


def replaced_values(recipe: fdl.Buildable[Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields that were set on the command line, by dotted path, each with the value it had before.

    Args:
        recipe: The recipe, or a group of it.
        prefix: Path of the group with a dot at its end; empty for the root.
    """
    replaced = {}
    for name, value in recipe.__arguments__.items():
        if isinstance(value, fdl.Buildable):
            replaced.update(replaced_values(value, f"{prefix}{name}."))
            continue
        entries = [e for e in recipe.__argument_history__[name] if e.kind is history.ChangeKind.NEW_VALUE]
        if entries and entries[-1].location.filename == COMMAND_LINE:
            before = [entry.new_value for entry in entries if entry.location.filename != COMMAND_LINE]
            replaced[f"{prefix}{name}"] = showable(before[-1] if before else None)
    return replaced


def showable(value: Any) -> Any:
    """Return a value that was never checked as one that can be written and shown: plain, and without secrets."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, list):
        return [showable(item) for item in value]
    return mask(str(value), secret_values(os.environ))
