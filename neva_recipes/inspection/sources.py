"""Where the value of each field comes from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fiddle as fdl
from fiddle import history

from neva_recipes.config import COMMAND_LINE, showable

__all__ = ["Source", "source_of"]

_OURS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Source:
    """Where a value comes from.

    Attributes:
        kind: A default of the class, `key=value` on the command line, Python code, a file of values, or unknown where
            Fiddle kept no history.
        file: Path of the file; none for the other kinds.
        line: Line of the file; none where it is not known.
        function: Function that set it; none where it was no function.
        replaced: The value it took the place of, secrets masked; meaningless unless `kind` is `command line`.
    """

    kind: Literal["default", "command line", "python", "file", "unknown"]
    file: str | None = None
    line: int | None = None
    function: str | None = None
    replaced: Any = None

    def __str__(self) -> str:
        """Return it in few words: `default`, `llava.finetune`, `recipes.py:12`, or `command line`."""
        if self.file is None:
            return self.kind
        path = Path(self.file)
        if path.parent == _OURS and self.function is not None:
            public = not self.function.startswith(("_", "<"))
            return f"{path.stem}.{self.function}" if public else path.stem
        return path.name if self.line is None else f"{path.name}:{self.line}"


def source_of(node: fdl.Buildable[Any], name: str) -> Source:
    """Return where the value of a field of one group comes from.

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
        return Source("command line", replaced=showable(others[-1]) if others else None)
    if location.filename.startswith("default of "):
        return Source("default")
    kind: Literal["python", "file"] = "file" if location.function_name is None else "python"
    return Source(kind, location.filename, location.line_number or None, location.function_name)


def _in_short(value: Any) -> Any:
    """Return a value, of a group its class alone."""
    return fdl.get_callable(value).__name__ if isinstance(value, fdl.Buildable) else value
