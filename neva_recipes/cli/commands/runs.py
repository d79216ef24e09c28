"""Manages runs: `nemo-run logs`, `cancel`, `resume` and `rerun`."""

import argparse
import copy
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neva_recipes.cli._chosen import choose_run
from neva_recipes.cli.arguments import (
    StrictParser,
    UsageError,
    add_quiet,
    add_runs_dir,
    apply_overrides,
    split_overrides,
    whole_number,
)
from neva_recipes.cli.commands.executors import add_gpu, split_executor_overrides, with_gpu
from neva_recipes.cli.commands.models.tools import tool_command
from neva_recipes.cli.commands.pipeline import rerun_pipeline, resume_pipeline
from neva_recipes.cli.dry_run import show
from neva_recipes.cli.fields import describe_fields
from neva_recipes.cli.report.finish import finish, reference, stopped_line
from neva_recipes.cli.resume_dry_run import show_resume, show_stages
from neva_recipes.cli.several import means_sweep
from neva_recipes.cli.words import checkpoint_words
from neva_recipes.config import Draft, NonNegative, Recipe, RecipeError, RunError, load_recipe
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.stages import run_title
from neva_recipes.terminal import print_line, print_log, tell

if TYPE_CHECKING:
    from executors import Executor, Run

__all__ = ["cancel_command", "logs_command", "parse_age", "rerun_command", "resume_command"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def logs_command(argv: Sequence[str]) -> int:
    """Print the log of a run: `nemo-run logs RUN [-f] [--rank N] [--tail N] [--since T]`."""
    parser = StrictParser(
        "nemo-run logs",
        description=(
            "What a run has printed, all ranks joined. What several ranks print alike is one\n"
            "line, with [0-63] before it; its directory has each rank's own in logs/."
        ),
    )
    _add_run(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--rank", metavar="N", type=whole_number, help="the log of one rank only")
    parser.add_argument(
        "--tail", metavar="N", type=partial(whole_number, kind=NonNegative), help="only the last N lines of the log"
    )
    parser.add_argument("--since", metavar="T", help="only lines of the last 10m, 12h, ... or since 2026-01-31T16:00")
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    run = choose_run(arguments.run, arguments.runs_dir)
    if arguments.follow and (status := run.status()).state == "queued":
        reason = f": {status.reason}" if status.reason else ""
        print_line(f"run {run_title(run.path)} is queued{reason}", sys.stderr)
    lines = run.logs(
        follow=arguments.follow,
        rank=arguments.rank,
        since=None if arguments.since is None else _moment(arguments.since),
        tail=arguments.tail,
        fold=True,
    )
    for line in lines:
        print_log(line)
        if arguments.follow:
            sys.stdout.flush()
    return 0


def cancel_command(argv: Sequence[str]) -> int:
    """Stop runs: `nemo-run cancel RUN ... [--save | --force]`."""
    parser = StrictParser(
        "nemo-run cancel",
        description=(
            "Stop runs and all of their processes. A pattern in quotes, such as 'sweep-*',\n"
            "means all that are going on and match."
        ),
    )
    _add_run(parser, nargs="+")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--save", action="store_true", help="have them finish their step and save a checkpoint first")
    how.add_argument("--force", action="store_true", help="kill them at once, without asking them first")
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    from executors.runs.together import cancel_together

    # A wrong name ends the command before anything is stopped.
    runs = {run.path: run for name in arguments.run for run in _to_cancel(name, arguments.runs_dir)}
    refusals = []
    for run, refusal in cancel_together(list(runs.values()), arguments.force, save=arguments.save):
        if refusal is None and arguments.save and (status := run.status()).state not in ("cancelled", "succeeded"):
            refusal = RunError(f"run {run_title(run.path)} {status.state}: {status.reason}")
        if refusal is None:
            print_line(stopped_line(run, with_reason=arguments.save), sys.stdout)
        else:
            refusals.append(refusal)
    for refusal in refusals[:-1]:
        tell("error", str(refusal))
    if refusals:
        raise refusals[-1]
    return 0


def _to_cancel(name: str, runs_dir: Path) -> list["Run"]:
    """Return the runs that a word means; of a pattern only runs that are still going on, after naming them."""
    from executors import find_runs, is_pattern

    runs = find_runs(name, runs_dir)
    if not is_pattern(name) or [run.name for run in runs] == [name]:
        return runs
    going_on = [run for run in runs if run.status().exit_code is None]
    if not going_on:
        raise RunError(f"no run that matches {name!r} is going on")
    tell("note", f"{name} matches {', '.join(run.name for run in going_on)}")
    return going_on


def resume_command(argv: Sequence[str]) -> int:
    """Go on with a run, possibly with changed fields: `nemo-run resume RUN [key=value ...]`."""
    parser = _changing_parser("resume", "Go on with a run from its newest checkpoint, possibly with changed fields.")
    parser.add_argument("--from", metavar="STEP", dest="go_on_from", help="an earlier checkpoint, such as step-400")
    arguments = parser.parse(argv)
    if arguments.run is not None and (words := checkpoint_words(arguments.run)) is not None:
        raise UsageError(f"{arguments.run}: is no run (did you mean nemo-run resume {words}?)")
    run = _named_run(parser, arguments)
    if run is None:
        return 0

    from executors.pipelines.order import require_inputs
    from executors.pipelines.spec import is_pipeline

    if is_pipeline(run.path) and not arguments.help:
        if arguments.sweep:
            raise UsageError(f"--sweep: {run.name} is there already, and goes on without it")
        if arguments.go_on_from is not None:
            raise UsageError(f"--from {arguments.go_on_from}: {run.name} has stages: name one, {run.name}/STAGE")
        if arguments.dry_run:
            return show_stages(run, split_overrides(arguments.overrides))
        return resume_pipeline(run, split_overrides(arguments.overrides), arguments=arguments)
    changed = _changed(parser, arguments, run)
    if changed is None:
        return 0
    recipe, executor = changed
    if arguments.go_on_from is None:
        require_inputs(run.path, recipe)
    if arguments.dry_run:
        return show_resume(run, recipe, executor or run.executor(), arguments.go_on_from, arguments.overrides)
    notes = run.resume_notes(recipe, arguments.go_on_from, arguments.overrides)
    has_started = run.resume(
        recipe,
        detach=arguments.detach,
        quiet=arguments.quiet,
        executor=executor,
        go_on_from=arguments.go_on_from,
        notes=notes,
    )
    return finish(run, arguments.detach) if has_started else 0


def rerun_command(argv: Sequence[str]) -> int:
    """Start a new run with the recipe of another run: `nemo-run rerun RUN [key=value ...]`."""
    parser = _changing_parser("rerun", "Start a new run with the recipe and the executor of another one.")
    parser.add_argument("--name", metavar="N", help="name of the new run (that of the other)")
    arguments = parser.parse(argv)
    old = _named_run(parser, arguments)
    if old is None:
        return 0

    import executors
    from executors.pipelines.spec import is_pipeline
    from executors.runs.references import owner_of

    if is_pipeline(old.path) and not arguments.help:
        if arguments.sweep:
            raise UsageError(f"--sweep: {old.name} is run again with the stages it has")
        return rerun_pipeline(old, split_overrides(arguments.overrides), arguments)
    changed = _changed(parser, arguments, old)
    if changed is None:
        return 0
    recipe, executor = changed
    executor = executor or old.executor()
    # The rerun of a stage or of a sweep's point is a run of its own, beside its pipeline and named after its recipe.
    owner = owner_of(old)
    own = old.record()["name"] if owner is None else None
    name, runs_dir = arguments.name or own, (owner or old).path.parent
    if arguments.dry_run:
        from neva_recipes.inspection import inspect_recipe

        return show(inspect_recipe(recipe, executor, name=name, runs_dir=runs_dir), "text")
    new = executors.run(
        recipe,
        executor,
        name=name,
        runs_dir=runs_dir,
        detach=arguments.detach,
        quiet=arguments.quiet,
    )
    return finish(new, arguments.detach)


def parse_age(text: str) -> timedelta:
    """Return the time that `30d`, `12h`, `10m` or `90s` stands for.

    Raises:
        UsageError: The text has none of these forms.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise UsageError(f"{text}: expected a time such as 90s, 10m, 12h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _moment(text: str) -> datetime:
    """Return the given time, or the time so long ago."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.now().astimezone() - parse_age(text)
    except (UsageError, OverflowError):
        raise UsageError(f"--since {text}: expected 90s, 10m, 12h, 30d or a time such as 2026-01-31T16:00") from None


def _changing_parser(command: str, description: str) -> StrictParser:
    """Return the parser of a command that takes a run and fields to change in it."""
    parser = StrictParser(
        f"nemo-run {command}",
        takes_fields=True,
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
    add_quiet(parser)
    parser.add_argument("--sweep", action="store_true", help=argparse.SUPPRESS)  # refused with advice
    parser.add_argument("--dry-run", action="store_true", help="show what would be started; write and start nothing")
    add_gpu(parser)
    add_runs_dir(parser)
    return parser


def _named_run(parser: StrictParser, arguments: argparse.Namespace) -> "Run | None":
    """Return the named run; `None` after printing the help of the command, if that is asked for without a run."""
    if arguments.run is not None:
        return choose_run(arguments.run, arguments.runs_dir)
    if not arguments.help:
        raise UsageError(f"{parser.prog} needs a RUN; nemo-run status lists them")
    print(parser.format_help())
    return None


def _changed(
    parser: StrictParser, arguments: argparse.Namespace, run: "Run"
) -> "tuple[Draft[Recipe], Executor | None] | None":
    """Return the recipe of a run with the fields changed, and its executor if fields of it are changed.

    Returns `None` after printing the help.
    """
    from executors import require_single, with_named_runs
    from executors.registry import changed_executor

    require_single(run.path, arguments.run)
    if not (run.path / RECIPE_FILE).is_file():
        raise _no_recipe(parser.prog, run, arguments.overrides)
    recipe = load_recipe(run.path / RECIPE_FILE)
    overrides = split_overrides(arguments.overrides)
    if (executor := overrides.get("executor")) is not None:
        elsewhere = shlex.join([str(run.path / RECIPE_FILE), "--executor", executor])
        raise UsageError(f"executor={executor}: a run keeps its executor: nemo-run {elsewhere} starts its recipe there")
    of_recipe, of_executor = split_executor_overrides(overrides)
    of_executor = with_gpu(of_executor, arguments.gpu)
    if arguments.sweep:
        raise UsageError(f"--sweep: {parser.prog} starts one run{_sweep_of(run, arguments.overrides)}")
    try:
        apply_overrides(recipe, of_recipe)
    except RecipeError as error:
        is_meant = means_sweep(str(error), of_recipe, partial(_with_overrides, recipe))
        raise RecipeError(f"{error}{_sweep_of(run, arguments.overrides) if is_meant else ''}") from None
    if arguments.help:
        parser.epilog = "\n".join(["fields, with what they hold in the run:", *describe_fields(recipe)])
        print(parser.format_help())
        return None
    recipe = with_named_runs(recipe, arguments.runs_dir)
    return recipe, changed_executor(run.executor(), of_executor) if of_executor else None


def _sweep_of(run: "Run", overrides: Sequence[str]) -> str:
    """Return the end of a message: the command that runs the recipe of a run with several values."""
    from executors import LocalExecutor

    kind = run.record()["executor"]["kind"]
    place = [] if kind == LocalExecutor.kind else ["--executor", kind]
    words = [os.path.relpath(run.path / RECIPE_FILE), *overrides, "--sweep", *place]
    return f"; new runs of its recipe, one for each value: nemo-run {shlex.join(words)}"


def _with_overrides(recipe: Draft[Recipe], overrides: Mapping[str, str]) -> None:
    apply_overrides(copy.deepcopy(recipe), overrides)


def _no_recipe(prog: str, run: "Run", overrides: Sequence[str]) -> UsageError:
    """Return the error for a run without a recipe; it names the command that does what was asked."""
    from executors.runs.references import owner_of

    pipeline = owner_of(run)
    if prog.endswith("resume") and pipeline is not None and run.status().state != "succeeded":
        changes = [f"{run.name}.{word}" for word in overrides]
        command = " ".join(["nemo-run resume", reference(pipeline), *map(shlex.quote, changes)])
        return UsageError(f"{run_title(run.path)} trains no recipe, and goes on with its pipeline: {command}")
    own = tool_command(run.path)
    hint = f"; with other arguments it is a command of its own: {own}" if own else ""
    return UsageError(f"{run_title(run.path)} trains no recipe: {prog} has nothing to change in it{hint}")


def _add_run(parser: StrictParser, nargs: str | None = None) -> None:
    parser.add_argument("run", metavar="RUN", nargs=nargs, help="name of a run, latest, a pattern, or a path")
