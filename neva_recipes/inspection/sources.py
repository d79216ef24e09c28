"""The source of the value of each field."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fiddle as fdl
from fiddle import history

from neva_recipes.config import (
    COMMAND_LINE,
    DEFAULT_OF,
    DERIVED,
    PLACEHOLDER,
    DraftNode,
    format_value,
    showable,
    stands_in_a_file,
)

__all__ = ["Source", "source_of"]

_OURS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Source:
    """The source of a value.

    Attributes:
        kind: A default of the class, `key=value` on the command line, Python code, a file of values, a placeholder that
            waits for a tokenizer, derived from another field or a run, or unknown if Fiddle has no history.
        file: Path of the file; `None` for the other kinds.
        line: Line of the file; `None` if unknown.
        function: Function that set it; `None` if it was not set in a function.
        meaning: The run whose path the value is, or the field it is derived from; `None` for other kinds.
        replaced: The value before, with secrets masked; only meaningful if `kind` is `command line`.
        is_unchanged: Whether the value from the command line is that before.
    """

    kind: Literal["default", "command line", "python", "file", "placeholder", "derived", "unknown"]
    file: str | None = None
    line: int | None = None
    function: str | None = None
    meaning: str | None = None
    replaced: Any = None
    is_unchanged: bool = False

    def __str__(self) -> str:
        """Return it in short: `default`, `llava.finetune`, `recipes.py:12`, `command line`, or `from FIELD`."""
        if self.kind == "derived":
            return f"{DERIVED}{self.meaning}"
        if self.meaning is not None:
            return f"{self.kind}: {self.meaning}"
        if self.file is None:
            return self.kind
        path = Path(self.file)
        if path.parent == _OURS and self.function is not None:
            public = not self.function.startswith(("_", "<"))
            return f"{path.stem}.{self.function}" if public else path.stem
        return path.name if self.line is None else f"{path.name}:{self.line}"


def source_of(node: DraftNode, name: str) -> Source:
    """Return the source of the value of a field.

    Args:
        node: The group, such as `recipe.optim`.
        name: The field.
    """
    if name not in node.__arguments__:
        return Source("default")
    entries = [entry for entry in node.__argument_history__[name] if entry.kind is history.ChangeKind.NEW_VALUE]
    if not entries:
        return Source("unknown")
    location = entries[-1].location
    if location.filename == COMMAND_LINE:
        others = [_in_short(entry.new_value) for entry in entries if entry.location.filename != COMMAND_LINE]
        named = location.function_name  # the text typed, if the value is the path of a run
        before = others[-1] if others else None
        value = _in_short(node.__arguments__[name])
        is_unchanged = before == value or format_value(before) == format_value(value)
        return Source("command line", meaning=named, replaced=showable(before), is_unchanged=is_unchanged)
    if location.filename == PLACEHOLDER:
        return Source("placeholder")
    if location.filename.startswith(DERIVED):
        return Source("derived", meaning=location.filename.removeprefix(DERIVED))
    if location.filename.startswith(DEFAULT_OF):
        return Source("default")
    kind: Literal["python", "file"] = "file" if stands_in_a_file(node, name) else "python"
    return Source(kind, location.filename, location.line_number or None, location.function_name)


def _in_short(value: object) -> Any:
    """Return a value; for a group, only its class."""
    return fdl.get_callable(value).__name__ if isinstance(value, fdl.Buildable) else value
