"""What a check found: a code to look up, the fields involved, and values that work."""

import dataclasses
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from neva_recipes.config import ConfigNode, Recipe, field_types, format_value

__all__ = [
    "SEVERITIES",
    "About",
    "Finding",
    "Remedy",
    "Severity",
    "error",
    "field_value",
    "finding",
    "shown_fields",
    "warning",
    "with_one_length",
]

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""In the order in which findings stand in a plan."""

About = Literal["recipe", "files", "memory", "executor", "machine"]

Remedy = Mapping[str, Any]
"""Fields to set together, by dotted path, and their values."""


_WANTED_FILES = ("file-missing", "file-not-set")
"""Codes of findings about files that another machine may have; what is wrong within a file is wrong everywhere."""

_SETTING = re.compile(rf"(?<![\w.])(?:{'|'.join(field_types(Recipe))})(?:\.\w+)+(?==)")
"""A field of a recipe followed by an equals sign, as a user can type it."""

_LENGTH = "data.sequence_length"


@dataclass(frozen=True)
class Finding:
    """One thing in a recipe that does not work or is wasteful.

    Attributes:
        code: Stable name of the rule, such as `tensor-parallel-heads`; docs/checks.md explains each.
        severity: `error` stops a launch, `warning` does not; a `note` may be right as it is.
        message: What is wrong, without the fields and the remedies, which `line` adds.
        fields: Dotted paths of the fields involved, and their values.
        remedies: Changes that each make this finding go away, nearest first; may be empty.
        advice: What to do if no value can be named, or as an alternative to the remedies.
        about: The subject: the recipe by itself, the files it names, the memory of a GPU, the executor, or this
            machine, if the run would train here without a GPU.
        path: The one of several paths in a field that it is about; `None` if it is about whole fields.
    """

    code: str
    severity: Severity
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    advice: str = ""
    about: About = "recipe"
    path: str | None = None

    @property
    def is_of_here(self) -> bool:
        """Whether another machine or executor may not have it: a file, GPU or package that is missing, a full disk."""
        return self.about in ("executor", "machine") or self.code in _WANTED_FILES

    def line(self, stage: str = "") -> str:
        """Return the finding as one line: fields and values, what is wrong, what to do.

        Args:
            stage: Pipeline stage that the recipe belongs to; the remedies then name its fields `STAGE.FIELD`, quoted
                for a shell.
        """
        where = ", ".join(_setting(path, value) for path, value in self.fields.items())
        text = f"{where}: {self.message}" if where else self.message
        todo = [*_ways(self.remedies), *([self.advice] if self.advice else [])]
        if not todo:
            return text
        if stage:  # a `nemo-run` command in a remedy names fields without the stage
            todo = [
                way if way.startswith("nemo-run ") else _SETTING.sub(partial(_of_stage, stage), way) for way in todo
            ]
        return f"{text}; {', or '.join(todo)}"


def with_one_length(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings of which those that ask for a longer `data.sequence_length` propose what is enough for all.

    Each is found by itself: the template needs a length, and the samples of each file need another one.
    """
    longer = {}
    for number, each in enumerate(findings):
        lengths = [remedy[_LENGTH] for remedy in each.remedies if _LENGTH in remedy]
        if each.severity == "error" and lengths and _LENGTH in each.fields and min(lengths) > each.fields[_LENGTH]:
            longer[number] = min(lengths)
    enough = max(longer.values(), default=0)
    result = list(findings)
    for number in longer:
        remedies = [remedy for remedy in findings[number].remedies if remedy.get(_LENGTH, enough) >= enough]
        if not any(_LENGTH in remedy for remedy in remedies):
            most = findings[max(longer, key=longer.__getitem__)].remedies
            remedies = [*(remedy for remedy in most if remedy.get(_LENGTH) == enough), *remedies]
        result[number] = dataclasses.replace(findings[number], remedies=tuple(remedies))
    return result


def _of_stage(stage: str, field: re.Match[str]) -> str:
    return shlex.quote(f"{stage}.{field[0]}")


def _setting(path: str, value: object) -> str:
    return f"{path}={shlex.quote(format_value(value))}"


def _ways(remedies: Iterable[Remedy]) -> list[str]:
    """Return `set a=1 or a=2` for remedies that change the same single field, and one text for each other remedy."""
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
    """Return the value of a built recipe at a dotted path; `None` if a group on the way is `None`."""
    value: Any = recipe
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def shown_fields(recipe: Recipe, path: str) -> dict[str, Any]:
    """Return the fields that a message shows for a path, with their values.

    That is the field itself, but for a group that is made by its fields: those that it cannot do without.
    """
    value = field_value(recipe, path)
    if not (isinstance(value, ConfigNode) and value.is_made_by_its_fields):
        return {path: value}
    needed = [field for field in dataclasses.fields(value) if field.default is dataclasses.MISSING]
    return {f"{path}.{field.name}": getattr(value, field.name) for field in needed}


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
    fields = {name: value for path in paths for name, value in shown_fields(recipe, path).items()}
    return Finding(code, severity, message, fields, tuple(remedies), advice)
