"""Looking after runs: `nemo-run status`, `logs`, `cancel` and `resume`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from neva_recipes.cli._arguments import StrictParser, UsageError, add_runs_dir, apply_overrides, split_overrides
from neva_recipes.cli._fields import describe_fields
from neva_recipes.cli._launch import finish
from neva_recipes.config import load_recipe
from neva_recipes.secrets import mask

if TYPE_CHECKING:
    from executors import Run, RunStatus

__all__ = ["cancel_command", "fact_lines", "logs_command", "resume_command", "run_facts", "status_command"]


def status_command(argv: Sequence[str]) -> int:
    """Print how one run stands, or a table of all: `nemo-run status [RUN]`."""
    parser = StrictParser("nemo-run status", description="How a run stands; without RUN, a line for every run.")
    _add_run(parser, nargs="?")
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    from executors import find_run, list_runs

    if arguments.run is not None:
        print(*fact_lines(run_facts(find_run(arguments.run, arguments.runs_dir))), sep="\n")
        return 0
    runs = list_runs(arguments.runs_dir)
    if not runs:
        print(f"no runs in {arguments.runs_dir}")
        return 0
    width = max(len(run.name) for run in runs)
    print(f"{'RUN':<{width}}  {'STATE':<9}  {'STEP':>6}  {'STARTED':<16}  TIME")
    for run in runs:
        status = run.status()
        step = "-" if status.step is None else str(status.step)
        started = f"{status.started:%Y-%m-%d %H:%M}" if status.started else "-"
        print(f"{run.name:<{width}}  {status.state:<9}  {step:>6}  {started:<16}  {_duration(status)}")
    return 0


def logs_command(argv: Sequence[str]) -> int:
    """Print what a run has printed: `nemo-run logs RUN [-f] [--rank N]`."""
    parser = StrictParser("nemo-run logs", description="What a run has printed, all ranks joined.")
    _add_run(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--rank", metavar="N", type=int, help="the log of one rank only")
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    from executors import find_run

    for line in find_run(arguments.run, arguments.runs_dir).logs(follow=arguments.follow, rank=arguments.rank):
        print(line, flush=arguments.follow)
    return 0


def cancel_command(argv: Sequence[str]) -> int:
    """Stop a run: `nemo-run cancel RUN`."""
    parser = StrictParser("nemo-run cancel", description="Stop a run and all of its processes.")
    _add_run(parser)
    add_runs_dir(parser)
    arguments = parser.parse(argv)

    from executors import find_run

    run = find_run(arguments.run, arguments.runs_dir)
    run.cancel()
    print(f"{run.name} {run.status().state}")
    return 0


def resume_command(argv: Sequence[str]) -> int:
    """Go on with a run, possibly with changed fields: `nemo-run resume RUN [key=value ...]`."""
    parser = StrictParser(
        "nemo-run resume",
        usage="nemo-run resume RUN [key=value ...] [--detach] [--runs-dir D]",
        description="Go on with a run from its newest checkpoint, possibly with changed fields.",
        add_help=False,
    )
    _add_run(parser, nargs="?")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="field to change, such as optim.lr=1e-4")
    parser.add_argument("-h", "--help", action="store_true", help="with RUN: every field and what it holds in the run")
    parser.add_argument("--detach", action="store_true", help="return at once; the run goes on")
    add_runs_dir(parser)
    arguments = parser.parse(argv)
    if arguments.run is None:
        if not arguments.help:
            raise UsageError("nemo-run resume needs a RUN; nemo-run status lists them")
        print(parser.format_help())
        return 0

    from executors import find_run

    run = find_run(arguments.run, arguments.runs_dir)
    recipe = load_recipe(run.path / "recipe.yaml")
    apply_overrides(recipe, split_overrides(arguments.overrides))
    if arguments.help:
        parser.epilog = "\n".join(["fields, with what they hold in the run:", *describe_fields(recipe)])
        print(parser.format_help())
        return 0
    run.resume(recipe, detach=arguments.detach)
    return finish(run, arguments.detach)


def _add_run(parser: StrictParser, nargs: str | None = None) -> None:
    parser.add_argument("run", metavar="RUN", nargs=nargs, help="name of a run, or path of its directory")


def run_facts(run: "Run") -> dict[str, object]:
    """Return how a run stands, by label; none for what there is nothing to say of."""
    status = run.status()
    return {
        "run": run.name,
        "state": status.state,
        "reason": status.reason and mask(status.reason),
        "exit code": status.exit_code,
        "step": status.step,
        "started": status.started and f"{status.started:%Y-%m-%d %H:%M:%S}",
        "time": _duration(status),
        "directory": run.path,
    }


def fact_lines(facts: Mapping[str, object], indent: str = "") -> Iterator[str]:
    """Yield a line for each label that has a value, and one for each item of a list."""
    width = max(len(name) for name in facts) + 2
    for name, value in facts.items():
        items = value if isinstance(value, list) else [] if value is None else [value]
        for number, item in enumerate(items):
            label = "" if number else f"{name}:"
            yield f"{indent}{label:<{width}}{item}"


def _duration(status: "RunStatus") -> str:
    if status.started is None:
        return "-"
    end = status.ended or datetime.now(status.started.tzinfo)
    return str(timedelta(seconds=max(0, round((end - status.started).total_seconds()))))
