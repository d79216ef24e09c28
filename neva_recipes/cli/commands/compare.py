"""Compares recipes and runs: `nemo-run diff A B`."""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neva_recipes.cli.arguments import StrictParser, UsageError, add_recipes, add_runs_dir, split_overrides, wrap
from neva_recipes.cli.opening import is_run, named_parameters, open_recipe, tell_of_namesakes
from neva_recipes.cli.report.results import have_other_data, result_figures, results_of
from neva_recipes.comparison import Change, Figure, plan_figures, recipe_changes
from neva_recipes.config import PlainTable, format_value

if TYPE_CHECKING:
    from executors import Executor, Results
    from neva_recipes.plan import Finding, Plan

__all__ = ["change_lines", "change_to_plain", "diff_command", "figure_lines", "number_text"]

_WIDTH = 80
_LONGEST_NAME = 38
_NAME_COLUMNS = 27

_BETWEEN = " -- "
"""Replaces the -- between A and B, which argparse would remove."""


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = StrictParser(
        "nemo-run diff",
        takes_fields=True,
        parameters=named_parameters,
        usage=(
            "nemo-run diff A [B] [key=value ...] [flags]\n"
            "       nemo-run diff A [key=value ...] -- [B] [key=value ...] [flags]"
        ),
        description=(
            "What is different between two recipes, and what that does to layout, memory\n"
            "and cost. A and B are each a name that nemo-run list shows, a saved recipe\n"
            "(.yaml) or a run; of a recipe and a run of one name the recipe is taken.\n"
            "key=value changes B; without B, it changes A itself. With --\n"
            "each side has its own, A before it and B behind it:\n"
            "\n"
            "  nemo-run diff llava.pretrain llava.finetune\n"
            "  nemo-run diff llava.finetune parallel.tensor_model_parallel_size=2\n"
            "  nemo-run diff llava.finetune size=tiny -- size=13b\n"
            "  nemo-run diff RUN RUN"
        ),
    )
    parser.add_argument("words", metavar="A [B] [key=value ...]", nargs="+", help="what to compare, and changes of B")
    parser.add_argument("--format", metavar="F", choices=("text", "json"), default="text", help="text or json (text)")
    parser.add_argument("--gpu", metavar="G", help="type of GPU for memory and time, such as h100-80g")
    add_recipes(parser, "recipes")
    add_runs_dir(parser)
    return parser.parse([_BETWEEN if word == "--" else word for word in argv])


def diff_command(argv: Sequence[str]) -> int:
    """Print the differences between two recipes: `nemo-run diff A B [key=value ...]`."""
    arguments = _parse(argv)
    from neva_recipes.plan import plan
    from neva_recipes.plan.serialization import plan_to_plain

    sides = _sides(arguments.words)
    place = {"recipes": arguments.recipes, "runs_dir": arguments.runs_dir}
    tell_of_namesakes([name for name, _ in sides], **place)
    old, new = (open_recipe(name, overrides, **place) for name, overrides in sides)
    changes = recipe_changes(old, new)
    plans = (
        plan(old, _place_of(sides[0][0], **place), gpu=arguments.gpu, runs_dir=arguments.runs_dir),
        plan(new, _place_of(sides[1][0], **place), gpu=arguments.gpu, runs_dir=arguments.runs_dir),
    )
    titles = _title(*sides[0]), _title(*sides[1])
    results = [_results(name, overrides, **place) for name, overrides in sides]
    if arguments.format == "json":
        print(json.dumps(_document(titles, changes, plans, results), indent=2, allow_nan=False))
        return 0
    print(wrap(f"A: {titles[0]}"), wrap(f"B: {titles[1]}"), "", sep="\n")
    if not changes:
        print("The recipes are equal.", *_result_lines(results), sep="\n")
        return 0
    count = "1 field differs" if len(changes) == 1 else f"{len(changes)} fields differ"
    print(f"{count} (A -> B)", *change_lines(changes), "", sep="\n")
    old_figures, new_figures = (plan_figures(plan_to_plain(found)) for found in plans)
    print(*figure_lines(old_figures, new_figures), sep="\n")
    if told := [found for found in plans if found.gpu_counts]:
        gpu, assumed = told[0].gpu, " (assumed: --gpu names another)" if told[0].gpu_assumed else ""
        print(f"  on GPUs of {gpu.memory_gib:g} GiB, {gpu.name}{assumed}")
    if len(told) < len(plans):
        print("  memory and time are not known for a CPU: --gpu NAME tells them for a GPU")
    for title, findings in (("A", _only_in(*plans)), ("B", _only_in(*reversed(plans)))):
        if findings:
            print("", f"Found in {title} alone", *_finding_lines(findings), sep="\n")
    print(*_result_lines(results), sep="\n", end="\n" if any(results) else "")
    return 0


def _sides(words: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Return name and overrides of A and of B.

    Raises:
        UsageError: A is missing, or there is nothing to compare it with.
    """
    refusal = UsageError("nemo-run diff takes A and B, or A and key=value; nemo-run diff --help shows examples")
    if _BETWEEN not in words:
        names = [word for word in words if not _is_override(word)]
        overrides = split_overrides([word for word in words if _is_override(word)])
        if not names or len(names) > 2 or (len(names) == 1 and not overrides):
            raise refusal
        return [(names[0], {}), (names[-1], overrides)]
    sides: list[tuple[str, dict[str, str]]] = []
    middle = words.index(_BETWEEN)
    for part in (words[:middle], words[middle + 1 :]):
        names = [word for word in part if not _is_override(word)]
        if len(names) > 1 or not part or not (names or sides):
            raise refusal
        name = names[0] if names else sides[0][0]
        sides.append((name, split_overrides([word for word in part if _is_override(word)])))
    return sides


def _place_of(name: str, recipes: Sequence[Path], runs_dir: Path) -> "Executor | None":
    """Return where a recipe would start without --executor: here; `None` for the recipe of a run elsewhere."""
    from executors import LocalExecutor, find_run

    if is_run(name, recipes) and find_run(name, runs_dir).record()["executor"]["kind"] != LocalExecutor.kind:
        return None
    return LocalExecutor()


def _title(name: str, overrides: Mapping[str, str]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in overrides.items())])


def _results(name: str, overrides: Mapping[str, str], *, recipes: Sequence[Path], runs_dir: Path) -> "Results | None":
    """Return the results of a run; `None` if it is no run or its recipe is changed."""
    return None if overrides or not is_run(name, recipes) else results_of(name, runs_dir)


def _result_lines(results: "Sequence[Results | None]") -> Iterator[str]:
    if any(results):
        yield ""
        yield from figure_lines(*result_figures(*results), "What came of it")
        if have_other_data(*results):
            yield "  they were asked other questions, or in another way (template, images): nemo-run evaluate"


def _is_override(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and "/" not in key  # a path may contain an equals sign too


def change_lines(changes: Iterable[Change], old: str = "A", new: str = "B") -> Iterator[str]:
    """Yield the lines that show changes, by group, with old and new value side by side if both fit.

    Args:
        changes: The changes.
        old: Title of the first recipe.
        new: Title of the second recipe.
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


def figure_lines(old: Sequence[Figure], new: Sequence[Figure], title: str = "What it does") -> Iterator[str]:
    """Yield the lines of figures of A and B side by side.

    Args:
        old: The figures of A.
        new: The figures of B, in the same order.
        title: Title above their names.
    """
    yield f"{title:<{_NAME_COLUMNS}}{'A':>16}{'B':>16}{'change':>12}"
    for one, other in zip(old, new, strict=True):
        if one.value is not None or other.value is not None:
            name, left = f"  {one.name}", number_text(one)
            if len(name) > _NAME_COLUMNS:
                yield name
                name = ""
            yield f"{name:<{_NAME_COLUMNS}}{left:>16}{number_text(other):>16}{_ratio(one, other):>12}".rstrip()


def number_text(figure: Figure) -> str:
    """Return a figure with its unit, or `-` if unknown; shares to a hundredth of a percent."""
    value = figure.value
    if value is None:
        return "-"
    if figure.unit == "%":
        value = round(value, 2) + 0.0  # removes float rounding such as 1.1e-14, and the sign of -0.0
    if figure.unit == "":
        return f"{value:,.0f}"
    digits = 4 if figure.unit == "nats" else 3
    return f"{value:,.0f} {figure.unit}" if value >= 1000 else f"{value:.{digits}g} {figure.unit}"


def _ratio(one: Figure, other: Figure) -> str:
    if one.value is None or other.value is None:
        return ""
    if number_text(one) == number_text(other):
        return "same"
    if one.unit == "%" or one.value == 0:
        return ""
    ratio = other.value / one.value
    if ratio >= 2 or ratio < 0.5:
        return f"x {ratio:.3g}"
    change = f"{100 * (ratio - 1):+.1f} %"
    return change if change[1:] != "0.0 %" else "< 0.1 %"


def _only_in(one: "Plan", other: "Plan") -> list["Finding"]:
    """Return the findings of one plan only; what is missing on this machine says nothing about the recipe."""
    known = {finding.line() for finding in other.findings}
    everywhere = (finding for finding in one.findings if not finding.is_of_here)
    shown = (finding for finding in everywhere if one.gpu_counts or finding.about != "memory")
    return [finding for finding in shown if finding.line() not in known]


def _finding_lines(findings: Iterable["Finding"]) -> Iterator[str]:
    for finding in findings:
        yield f"  {finding.severity}: {finding.code}"
        yield wrap(finding.line(), "    ")


def change_to_plain(change: Change) -> PlainTable:
    """Return a change for JSON, without a side that lacks the field."""
    sides = {"old": change.old, "new": change.new}
    return {"path": change.path, **{side: sides[side] for side in sides if change.only_in in (None, side)}}


def _document(
    titles: tuple[str, str],
    changes: Iterable[Change],
    plans: "tuple[Plan, Plan]",
    results: "Sequence[Results | None]",
) -> PlainTable:
    from neva_recipes.plan.serialization import plan_to_plain

    sides = [
        {"recipe": title, "plan": plan_to_plain(planned), "results": found and found.to_plain()}
        for title, planned, found in zip(titles, plans, results, strict=True)
    ]
    return {"schema": 1, "a": sides[0], "b": sides[1], "changes": list(map(change_to_plain, changes))}
