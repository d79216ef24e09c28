"""The warnings of plans, printed before anything is started; a warning of several runs is printed once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neva_recipes.plan import Plan
from neva_recipes.terminal import tell

__all__ = [
    "PlanWarning",
    "joined_warnings",
    "notes_of",
    "saved_warnings",
    "stage_lines",
    "tell_warnings",
    "warnings_of",
]


@dataclass(frozen=True)
class PlanWarning:
    """A warning of a plan.

    Attributes:
        rule: The code of the rule and the fields that it concerns.
        line: The message.
    """

    rule: tuple[str, ...]
    line: str


def warnings_of(plan: Plan | None) -> list[PlanWarning]:
    """Return the warnings of a plan; an empty result without a plan."""
    found = () if plan is None else plan.warnings
    return [PlanWarning((finding.code, *finding.fields), finding.line()) for finding in found]


def notes_of(plan: Plan | None) -> list[PlanWarning]:
    """Return the notes of a plan in the form of warnings; an empty result without a plan."""
    return [] if plan is None else [PlanWarning((note.code, *note.fields), note.line()) for note in plan.notes]


def saved_warnings(plan: Mapping[str, Any] | None) -> list[PlanWarning]:
    """Return the warnings in a plan.json; an empty result without one."""
    if plan is None:
        return []
    gpu_counts = plan.get("gpu_counts", True)
    found = [entry for entry in plan["findings"] if entry["severity"] == "warning"]
    told = [entry for entry in found if gpu_counts or entry["about"] != "memory"]
    return [PlanWarning((entry["code"], *entry["fields"]), entry["line"]) for entry in told]


def joined_warnings(by_stage: Sequence[tuple[str, Sequence[PlanWarning]]], *, is_sweep: bool) -> Iterator[str]:
    """Yield each warning of a pipeline or sweep once, with the stages or the number of points that it concerns.

    Messages about points differ in their values: a rule that several points break is shown with the first message.

    Args:
        by_stage: Name and warnings of each stage or point.
        is_sweep: Whether they are the points of a sweep.
    """
    lines: dict[tuple[str, ...], str] = {}
    names: dict[tuple[str, ...], list[str]] = {}
    for name, warnings in by_stage:
        for warning in warnings:
            key = warning.rule if is_sweep else (warning.line,)
            lines.setdefault(key, warning.line)
            names.setdefault(key, []).append(name)
    for key, line in lines.items():
        concerned = list(dict.fromkeys(names[key]))
        yield f"{line} ({len(concerned)} of {len(by_stage)} points)" if is_sweep else f"{', '.join(concerned)}: {line}"


def stage_lines(found: Iterable[tuple[str, str]], points: int | None) -> Iterator[str]:
    """Yield lines that begin with their stage; one that several points of a sweep share once, with their number.

    Args:
        found: Stage and line.
        points: Number of points of a sweep; `None` for another pipeline.
    """
    concerned: dict[str, list[str]] = {}
    for stage, line in found:
        if points is None:
            yield f"{stage}: {line}"
        else:
            concerned.setdefault(line, []).append(stage)
    for line, stages in concerned.items():
        yield f"{line} ({len(stages)} of {points} points)" if len(stages) > 1 else f"{stages[0]}: {line}"


def tell_warnings(lines: Iterable[str], notes: Iterable[str] = ()) -> None:
    """Print notes and warnings on standard error."""
    for line in notes:
        tell("note", line)
    for line in lines:
        tell("warning", line)
