"""Looking after runs: `nemo-run logs`, `cancel`, `resume` and `rerun`."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import fiddle as fdl

from neva_recipes.cli._arguments import StrictParser, UsageError, add_runs_dir, apply_overrides, split_overrides
from neva_recipes.cli._executors import split_executor_overrides
from neva_recipes.cli._fields import describe_fields
from neva_recipes.cli._finish import finish
from neva_recipes.cli._pipeline import resume_pipeline
from neva_recipes.cli._tools import tool_command
from neva_recipes.config import Recipe, load_recipe

if TYPE_CHECKING:
    from executors import Executor, Run

__all__ = ["cancel_command", "logs_command", "parse_age", "rerun_command", "resume_command"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def logs_command(argv: Sequence[str]) -> int:
    """Print what a run has printed: `nemo-run logs RUN [-f] [--rank N] [--tail N] [--since T]`."""
    parser = StrictParser(
        "nemo-run logs",
        description=(
            "What a run has printed, all ranks joined. What several ranks print alike is one\n"
            "line, with [0-63] before it; its directory has each rank's own in logs/."
        ),
    )
    _add_run(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--rank", metavar="N", type=int, help="the log of one rank only")
    parser.add_argument("--tail", metavar="N", type=_count, help="only the last N lines of the log")
    parser.add_argument("--since", metavar="T", help="only lines of the last 10m, 12h, ... or since 2026-01-31T16:00")
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    from executors import find_run

    run = find_run(arguments.run, arguments.runs_dir)
    if arguments.follow and (status := run.status()).state == "queued":
        reason = f": {status.reason}" if status.reason else ""
        print(f"run {run.name} is queued{reason}", file=sys.stderr, flush=True)
    lines = run.logs(
        follow=arguments.follow,
        rank=arguments.rank,
        since=None if arguments.since is None else _moment(arguments.since),
        tail=arguments.tail,
        fold=True,
    )
    for line in lines:
        print(line, flush=arguments.follow)
    return 0


def cancel_command(argv: Sequence[str]) -> int:
    """Stop runs: `nemo-run cancel RUN ... [--force]`."""
    parser = StrictParser("nemo-run cancel", description="Stop runs and all of their processes.")
    _add_run(parser, nargs="+")
    parser.add_argument("--force", action="store_true", help="kill them at once: they cannot save anything")
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    from executors import find_run
    from executors.runs import cancel_together

    # A name that is wrong stops everything before anything is stopped.
    runs = {run.path: run for run in [find_run(name, arguments.runs_dir) for name in arguments.run]}
    refusals = []
    for run, refusal in cancel_together(list(runs.values()), arguments.force):
        if refusal is None:
            print(f"{run.name} {run.status().state}", flush=True)
        else:
            refusals.append(refusal)
    for refusal in refusals[:-1]:
        print(f"error: {refusal}", file=sys.stderr)
    if refusals:
        raise refusals[-1]
    return 0


def resume_command(argv: Sequence[str]) -> int:
    """Go on with a run, possibly with changed fields: `nemo-run resume RUN [key=value ...]`."""
    parser = _changing_parser("resume", "Go on with a run from its newest checkpoint, possibly with changed fields.")
    arguments = parser.parse(argv)
    if (pipeline := _named_pipeline(arguments)) is not None:
        return resume_pipeline(pipeline, split_overrides(arguments.overrides), detached=arguments.detach)
    chosen = _choose(parser, arguments)
    if chosen is None:
        return 0
    run, recipe, executor = chosen
    run.resume(recipe, detach=arguments.detach, executor=executor)
    return finish(run, arguments.detach)


def rerun_command(argv: Sequence[str]) -> int:
    """Start a new run from the recipe of another: `nemo-run rerun RUN [key=value ...]`."""
    parser = _changing_parser("rerun", "Start a new run with the recipe and the executor of another one.")
    parser.add_argument("--name", metavar="N", help="name of the new run (that of the other)")
    arguments = parser.parse(argv)
    chosen = _choose(parser, arguments)
    if chosen is None:
        return 0

    import executors

    old, recipe, executor = chosen
    new = executors.run(
        recipe,
        executor or old.executor(),
        name=arguments.name or old.record()["name"],
        runs_dir=old.path.parent,
        detach=arguments.detach,
    )
    return finish(new, arguments.detach)


def parse_age(text: str) -> timedelta:
    """Return the time that `30d`, `12h`, `10m` or `90s` stands for.

    Raises:
        UsageError: It is none of these.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise UsageError(f"{text}: expected a time such as 90s, 10m, 12h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _moment(text: str) -> datetime:
    """Return the time of a day, or that of so long ago."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.now().astimezone() - parse_age(text)
    except (UsageError, OverflowError):
        raise UsageError(f"--since {text}: expected 90s, 10m, 12h, 30d or a time such as 2026-01-31T16:00") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of lines")
    return int(text)


def _changing_parser(command: str, description: str) -> StrictParser:
    """Return the parser of a command that takes a run and fields to change in it."""
    parser = StrictParser(
        f"nemo-run {command}",
        usage=f"nemo-run {command} RUN [key=value ...] [flags]",
        description=description,
        add_help=False,
    )
    _add_run(parser, nargs="?")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="field to change: optim.lr=1e-4, executor.time=60"
    )
    parser.add_argument("-h", "--help", action="store_true", help="with RUN: every field and what it holds in the run")
    parser.add_argument("--detach", action="store_true", help="return at once; the run goes on")
    add_runs_dir(parser)
    return parser


def _named_pipeline(arguments: argparse.Namespace) -> "Run | None":
    """Return the run that is named if it is that of a pipeline or a sweep, unless its help is asked for."""
    if arguments.run is None or arguments.help:
        return None

    from executors import find_run
    from executors._pipeline_directory import is_pipeline

    run = find_run(arguments.run, arguments.runs_dir)
    return run if is_pipeline(run.path) else None


def _choose(
    parser: StrictParser, arguments: argparse.Namespace
) -> "tuple[Run, fdl.Buildable[Recipe], Executor | None] | None":
    """Return the run that is named, its recipe with the fields changed, and its executor if fields of it are changed.

    None once the help has been printed.
    """
    if arguments.run is None:
        if not arguments.help:
            raise UsageError(f"{parser.prog} needs a RUN; nemo-run status lists them")
        print(parser.format_help())
        return None

    from executors import find_run
    from executors.registry import changed_executor

    run = find_run(arguments.run, arguments.runs_dir)
    if not (run.path / "recipe.yaml").is_file():
        command = tool_command(run.path)
        hint = f"; with other arguments it is a command of its own: {command}" if command else ""
        raise UsageError(f"{run.name} trains no recipe: {parser.prog} has nothing to change in it{hint}")
    recipe = load_recipe(run.path / "recipe.yaml")
    overrides = split_overrides(arguments.overrides)
    if (executor := overrides.get("executor")) is not None:
        elsewhere = shlex.join([str(run.path / "recipe.yaml"), "--executor", executor])
        raise UsageError(f"executor={executor}: a run keeps its executor: nemo-run {elsewhere} starts its recipe there")
    of_recipe, of_executor = split_executor_overrides(overrides)
    apply_overrides(recipe, of_recipe)
    if arguments.help:
        parser.epilog = "\n".join(["fields, with what they hold in the run:", *describe_fields(recipe)])
        print(parser.format_help())
        return None
    return run, recipe, changed_executor(run.executor(), of_executor) if of_executor else None


def _add_run(parser: StrictParser, nargs: str | None = None) -> None:
    parser.add_argument("run", metavar="RUN", nargs=nargs, help="name of a run, or path of its directory")
