"""Shows what a past run really used: `nemo-run show RUN`."""

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import fiddle as fdl

from neva_recipes.cli._chosen import choose_run
from neva_recipes.cli.arguments import StrictParser, add_runs_dir, wrap
from neva_recipes.cli.commands.compare import change_lines, change_to_plain, number_text
from neva_recipes.cli.commands.status import fact_lines, run_document, run_facts
from neva_recipes.cli.report.results import duration_text, result_facts
from neva_recipes.comparison import Change, plan_figures, recipe_changes
from neva_recipes.config import (
    COMMAND_LINE,
    Draft,
    PlainTable,
    Recipe,
    format_value,
    load_recipe,
    recipe_to_plain,
    value_from,
)
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.secrets import mask, secret_values
from neva_recipes.terminal import print_text

if TYPE_CHECKING:
    from executors import Results, Run

__all__ = ["show_command"]


def show_command(argv: Sequence[str]) -> int:
    """Print what a run used: `nemo-run show RUN`."""
    parser = StrictParser(
        "nemo-run show",
        description=(
            "What a run really used: how it stands, what started it where, its plan as it\n"
            "was then, its recipe, and what was changed when it was resumed."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="name of a run, latest, a pattern, or a path")
    parser.add_argument("--format", metavar="F", choices=("text", "json"), default="text", help="text or json (text)")
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    run = choose_run(arguments.run, arguments.runs_dir)
    text = json.dumps(_document(run), indent=2, allow_nan=False) if arguments.format == "json" else _text(run)
    # Files written today hold no secrets; a directory may be older, or edited.
    (print if arguments.format == "json" else print_text)(mask(text, secret_values(os.environ)))
    return 0


def _resumes(run: "Run") -> list[tuple[str, list[Change]]]:
    """Return the changes of each resume with another recipe, oldest first, and the file with the recipe before it."""
    files = run.recipe_files() if _trains(run) else []
    return [(old.name, recipe_changes(load_recipe(old), load_recipe(new))) for old, new in pairwise(files)]


def _document(run: "Run") -> PlainTable:
    return {
        **run_document(run),
        "job": run.record(),
        "plan": run.saved_plan(),
        "recipe": recipe_to_plain(load_recipe(run.path / RECIPE_FILE)) if _trains(run) else None,
        "resumes": [
            {"before": name, "changes": list(map(change_to_plain, changes))} for name, changes in _resumes(run)
        ],
    }


def _trains(run: "Run") -> bool:
    """Return whether a run has a recipe; a pipeline has stages, and not every stage trains."""
    return (run.path / RECIPE_FILE).exists()


def _text(run: "Run") -> str:
    from executors.pipelines.directory import stage_statuses, stage_table
    from executors.pipelines.spec import is_pipeline
    from neva_recipes.inspection import recipe_to_text

    record, checkpoint = run.record(), run.newest_checkpoint()
    blocks: list[tuple[str, Iterable[str]]] = [
        ("Run", fact_lines({**run_facts(run), "checkpoint": checkpoint}, "  ")),
        *_results_block(run.results()),
        ("Started as", fact_lines(_origin(record, run.status().attempt), "  ")),
    ]
    if not _trains(run):
        stages = stage_statuses(run.path) if is_pipeline(run.path) else []
        blocks += [("Stages", [f"  {line}" for line in stage_table(stages)])] if stages else []
        return "\n".join("\n".join([title, *lines, ""]) for title, lines in blocks).rstrip()
    recipe = load_recipe(run.path / RECIPE_FILE)
    _restore_history(recipe, record.get("command_line", {}))
    blocks += [
        ("Plan, as it was made for this recipe", _plan_lines(run.saved_plan())),
        *(
            (f"Changed when it was resumed (recipe before: {name})", change_lines(changes, "the recipe before", "it"))
            for name, changes in _resumes(run)
        ),
    ]
    return "\n".join([*("\n".join([title, *lines, ""]) for title, lines in blocks), recipe_to_text(recipe)]).rstrip()


def _results_block(results: "Results") -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the results of a run next to the figures of its plan, if it has any results."""
    facts = result_facts(results)
    planned: dict[str, tuple[float | None, float | None, Callable[[float], str]]] = {
        "time": (results.seconds, results.planned_seconds, lambda seconds: duration_text(timedelta(seconds=seconds))),
        "tokens/s": (results.tokens_per_second, results.planned_tokens_per_second, lambda speed: f"{speed:,.0f}"),
    }
    for label, (real, plan, text) in planned.items():
        if real is not None and plan is not None:
            facts[label] = f"{text(real)}, planned {text(plan)}"
    facts["warning"] = results.above_guessing and results.above_guessing.line
    if any(value is not None for value in facts.values()):
        yield "Results", fact_lines(facts, "  ")


def _restore_history(recipe: Draft[Recipe], replaced: Mapping[str, object]) -> None:
    """Record again which fields were set on the command line, and their values before."""
    for path, before in replaced.items():
        *groups, name = path.split(".")
        node: Any = recipe
        for group in groups:
            node = getattr(node, group, None)
        if not isinstance(node, fdl.Buildable) or name not in node.__arguments__:
            continue  # a resume has removed its group
        value = getattr(node, name)
        setattr(node, name, before)
        with value_from(COMMAND_LINE):
            setattr(node, name, value)


def _origin(record: Mapping[str, Any], attempt: int) -> dict[str, object]:
    """Return what started a run, from its job.json."""
    code, executor = record.get("code", {}), record["executor"]
    settings = [
        f"{name}={shlex.quote(format_value(value))}"
        for name, value in executor.items()
        if name not in ("kind", "env", "secret_env") and value not in (None, [], {})
    ]
    secrets = [f"{name} (set, its value is not kept)" for name in executor.get("secret_env", [])]
    return {
        "planned": record["created"],
        "attempts": attempt,
        "version": code.get("version"),
        "commit": code.get("commit"),
        "Python": record.get("python"),
        "host": record.get("hostname"),
        "executor": " ".join([executor["kind"], *settings]),
        "processes": f"{record['world_size']} on {record['num_nodes']} node{'s' if record['num_nodes'] > 1 else ''}",
        "command": shlex.join(record["argv"]),
        "folder": record["cwd"],
        "variables": [f"{name}={shlex.quote(value)}" for name, value in record["env"].items()] + secrets,
    }


def _plan_lines(plan: Mapping[str, Any] | None) -> Iterator[str]:
    if plan is None:
        yield "  none was kept"
        return
    for figure in plan_figures(plan):
        if figure.value is not None:
            yield f"  {figure.name:<25} {number_text(figure):>16}"
    if plan.get("gpu_counts", True):
        gpu = plan["gpu"]
        yield f"  on GPUs of {gpu['memory_gib']:g} GiB, {gpu['name']}{' (assumed)' if plan['gpu_assumed'] else ''}"
    for finding in plan["findings"]:
        yield wrap(f"{finding['severity']}: {finding['line']}", "  ")
