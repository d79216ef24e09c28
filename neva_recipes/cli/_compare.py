"""What is different: `nemo-run diff A B`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neva_recipes.cli._arguments import StrictParser, UsageError, add_runs_dir, split_overrides, wrap
from neva_recipes.cli._opening import open_recipe
from neva_recipes.comparison import Change, Figure, plan_figures, recipe_changes
from neva_recipes.config import format_value

if TYPE_CHECKING:
    from neva_recipes.plan import Finding, Plan

__all__ = ["change_lines", "change_to_plain", "diff_command", "number_text"]

_WIDTH = 80
_LONGEST_NAME = 38


def diff_command(argv: Sequence[str]) -> int:
    """Print what is different between two recipes: `nemo-run diff A B [key=value ...]`."""
    parser = StrictParser(
        "nemo-run diff",
        usage="nemo-run diff A [B] [key=value ...] [flags]",
        description=(
            "What is different between two recipes, and what that does to layout, memory\n"
            "and cost. A and B are each a name that nemo-run list shows, a saved recipe\n"
            "(.yaml) or a run. key=value changes B; without B, it changes A itself:\n"
            "\n"
            "  nemo-run diff llava.pretrain llava.finetune\n"
            "  nemo-run diff llava.finetune parallel.tensor_model_parallel_size=2\n"
            "  nemo-run diff RUN RUN"
        ),
    )
    parser.add_argument("words", metavar="A [B] [key=value ...]", nargs="+", help="what to compare, and changes of B")
    parser.add_argument("--format", metavar="F", choices=("text", "json"), default="text", help="text or json (text)")
    parser.add_argument("--gpu", metavar="G", help="type of GPU for memory and time, such as h100-80g")
    parser.add_argument("--recipes", metavar="F", type=Path, help="Python file with recipes of your own")
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    from neva_recipes.plan import plan
    from neva_recipes.plan.serialization import plan_to_plain

    overrides = split_overrides([word for word in arguments.words if _is_override(word)])
    names = [word for word in arguments.words if not _is_override(word)]
    if not names or len(names) > 2 or (len(names) == 1 and not overrides):
        raise UsageError("nemo-run diff takes A and B, or A and key=value; nemo-run diff --help shows examples")
    place = {"recipes": arguments.recipes, "runs_dir": arguments.runs_dir}
    old, new = open_recipe(names[0], {}, **place), open_recipe(names[-1], overrides, **place)
    changes = recipe_changes(old, new)
    plans = plan(old, gpu=arguments.gpu), plan(new, gpu=arguments.gpu)
    titles = names[0], " ".join([names[-1], *(f"{key}={value}" for key, value in overrides.items())])
    if arguments.format == "json":
        print(json.dumps(_document(titles, changes, plans), indent=2, allow_nan=False))
        return 0
    print(wrap(f"A: {titles[0]}"), wrap(f"B: {titles[1]}"), "", sep="\n")
    if not changes:
        print("The recipes are equal.")
        return 0
    count = "1 field differs" if len(changes) == 1 else f"{len(changes)} fields differ"
    print(f"{count} (A -> B)", *change_lines(changes), "", sep="\n")
    print(*_figure_lines(*(plan_figures(plan_to_plain(found)) for found in plans)), sep="\n")
    gpu, assumed = plans[0].gpu, " (assumed: --gpu names another)" if plans[0].gpu_assumed else ""
    print(f"  on GPUs of {gpu.memory_gib:g} GiB, {gpu.name}{assumed}")
    for title, findings in (("A", _only_in(*plans)), ("B", _only_in(*reversed(plans)))):
        if findings:
            print("", f"Found in {title} alone", *_finding_lines(findings), sep="\n")
    return 0


def _is_override(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and "/" not in key  # a path may hold the sign too


def change_lines(changes: Iterable[Change], old: str = "A", new: str = "B") -> Iterator[str]:
    """Yield the lines that show changes, by group, old and new value beside each other where both fit.

    Args:
        changes: The changes.
        old: What the first recipe is called.
        new: What the second one is called.
    """
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.group, []).append(change)
    missing = {None: "", "old": f" (not in {new})", "new": f" (not in {old})"}
    width = min(_LONGEST_NAME, max(len(change.name) for members in groups.values() for change in members))
    for group, members in groups.items():
        sides = {change.only_in for change in members}
        whole = missing[sides.pop()] if len(sides) == 1 else ""
        indent = "    " if group else "  "
        if group:
            yield f"  {group}{whole}"
        for change in members:
            left, right = format_value(change.old) or "''", format_value(change.new) or "''"
            if change.only_in is not None:
                note = "" if whole and group else missing[change.only_in]
                yield f"{indent}{change.name:<{width}} {left if change.only_in == 'old' else right}{note}"
            elif len(line := f"{indent}{change.name:<{width}} {left} -> {right}") <= _WIDTH:
                yield line
            else:
                yield from (f"{indent}{change.name}", f"{indent}    {left}", f"{indent} -> {right}")


def _figure_lines(old: Sequence[Figure], new: Sequence[Figure]) -> Iterator[str]:
    yield f"{'What it does':<27}{'A':>16}{'B':>16}{'change':>12}"
    for one, other in zip(old, new, strict=True):
        if one.value is not None or other.value is not None:
            name = f"  {one.name}"
            yield f"{name:<27}{number_text(one):>16}{number_text(other):>16}{_ratio(one, other):>12}".rstrip()


def number_text(figure: Figure) -> str:
    """Return a figure with its unit, `-` where it is not known."""
    value = figure.value
    if value is None:
        return "-"
    if figure.unit == "":
        return f"{value:,.0f}"
    return f"{value:,.0f} {figure.unit}" if value >= 1000 else f"{value:.3g} {figure.unit}"


def _ratio(one: Figure, other: Figure) -> str:
    if one.value is None or other.value is None:
        return ""
    if one.value == other.value:
        return "same"
    if one.unit == "%" or one.value == 0:
        return ""
    ratio = other.value / one.value
    return f"x {ratio:.3g}" if ratio >= 2 or ratio < 0.5 else f"{100 * (ratio - 1):+.1f} %"


def _only_in(one: "Plan", other: "Plan") -> list["Finding"]:
    """Return what was found in one plan alone; files that are not on this machine say nothing about the recipe."""
    known = {finding.line() for finding in other.findings}
    return [finding for finding in one.findings if finding.about != "files" and finding.line() not in known]


def _finding_lines(findings: Iterable["Finding"]) -> Iterator[str]:
    for finding in findings:
        yield f"  {finding.severity}: {finding.code}"
        yield wrap(finding.line(), "    ")


def change_to_plain(change: Change) -> dict[str, Any]:
    """Return a change for JSON; a side that has no such field is left out."""
    sides = {"old": change.old, "new": change.new}
    return {"path": change.path, **{side: sides[side] for side in sides if change.only_in in (None, side)}}


def _document(titles: tuple[str, str], changes: Iterable[Change], plans: "tuple[Plan, Plan]") -> dict[str, Any]:
    from neva_recipes.plan.serialization import plan_to_plain

    sides = [{"recipe": title, "plan": plan_to_plain(found)} for title, found in zip(titles, plans, strict=True)]
    return {"schema": 1, "a": sides[0], "b": sides[1], "changes": list(map(change_to_plain, changes))}
