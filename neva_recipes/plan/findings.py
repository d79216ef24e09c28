"""What a check found: a code to look up, the fields involved, and values that would work."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from neva_recipes.config import Recipe, format_value

__all__ = ["About", "Finding", "Remedy", "Severity", "error", "field_value", "finding", "warning"]

Severity = Literal["error", "warning"]

About = Literal["recipe", "files", "memory", "executor"]

Remedy = Mapping[str, Any]
"""Fields to set together, by dotted path, and their values."""


@dataclass(frozen=True)
class Finding:
    """One thing about a recipe that does not work, or works wastefully.

    Attributes:
        code: Stable name of the rule, such as `tensor-parallel-heads`; docs/checks.md explains each.
        severity: `error` stops a launch, `warning` does not.
        message: What is wrong, without the fields and the remedies, which `line` adds.
        fields: Dotted paths of the fields involved, and the values they hold.
        remedies: Changes each of which makes this finding go away, the nearest first; may be empty.
        advice: What to do where no value can be named, or beside the remedies.
        about: What it speaks of: the recipe by itself, the files it names, the memory of a GPU, or the executor.
    """

    code: str
    severity: Severity
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    advice: str = ""
    about: About = "recipe"

    def line(self) -> str:
        """Return the finding as one line: fields and values, what is wrong, what to do."""
        where = ", ".join(_setting(path, value) for path, value in self.fields.items())
        text = f"{where}: {self.message}" if where else self.message
        todo = [*_ways(self.remedies), *([self.advice] if self.advice else [])]
        return f"{text}; {', or '.join(todo)}" if todo else text


def _setting(path: str, value: Any) -> str:
    return f"{path}={shlex.quote(format_value(value))}"


def _ways(remedies: Iterable[Remedy]) -> list[str]:
    """Return `set a=1 or a=2` for each group of remedies that change the same single field, and for each other one."""
    single: dict[str, list[str]] = {}
    ways = []
    for remedy in remedies:
        if len(remedy) == 1:
            path, value = next(iter(remedy.items()))
            single.setdefault(path, []).append(_setting(path, value))
        else:
            ways.append("set " + " ".join(_setting(path, value) for path, value in remedy.items()))
    return ["set " + " or ".join(settings) for settings in single.values()] + ways


def field_value(recipe: Recipe, path: str) -> Any:
    """Return what a built recipe holds at a dotted path; none where a group on the way is none."""
    value: Any = recipe
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def error(
    code: str, message: str, recipe: Recipe, *paths: str, remedies: Iterable[Remedy] = (), advice: str = ""
) -> Finding:
    """Return an error about the fields at `paths`."""
    return finding("error", code, message, recipe, *paths, remedies=remedies, advice=advice)


def warning(
    code: str, message: str, recipe: Recipe, *paths: str, remedies: Iterable[Remedy] = (), advice: str = ""
) -> Finding:
    """Return a warning about the fields at `paths`."""
    return finding("warning", code, message, recipe, *paths, remedies=remedies, advice=advice)


def finding(
    severity: Severity,
    code: str,
    message: str,
    recipe: Recipe,
    *paths: str,
    remedies: Iterable[Remedy] = (),
    advice: str = "",
) -> Finding:
    """Return a finding about the fields at `paths`."""
    fields = {path: field_value(recipe, path) for path in paths}
    return Finding(code, severity, message, fields, tuple(remedies), advice)
