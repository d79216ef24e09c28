"""How runs stand: `nemo-run status`."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from neva_recipes.cli._arguments import StrictParser, add_runs_dir
from neva_recipes.config import UserError
from neva_recipes.secrets import mask

if TYPE_CHECKING:
    from executors import Run, RunStatus

__all__ = ["fact_lines", "run_facts", "status_command"]

_WIDTH = 80
_WATCH_SECONDS = 2.0
_QUESTIONS_AT_ONCE = 8
_UNREADABLE = "unreadable"
_NAME_WIDTH = _WIDTH - 44


@dataclass(frozen=True)
class _Row:
    """A run as the table shows it; without a status where it cannot be read."""

    name: str
    status: "RunStatus | None"

    stage_state: str | None = None
    """Of a stage of a pipeline, how it stands there."""

    @property
    def state(self) -> str:
        return self.stage_state or (self.status.state if self.status else _UNREADABLE)

    @property
    def has_ended(self) -> bool:
        # What the end of a stage leads to, its pipeline says.
        return self.status is None or self.status.exit_code is not None or self.stage_state is not None

    def cells(self) -> str:
        """Return what stands behind the name."""
        step = self.status.step if self.status else None
        return (
            f"{self.state:<10}  {'-' if step is None else step:>6}  {_started(self.status):<12}  "
            f"{_duration(self.status) if self.status else '-'}"
        )


def status_command(argv: Sequence[str]) -> int:
    """Print how one run stands, or a table of all: `nemo-run status [RUN] [--watch]`."""
    parser = StrictParser("nemo-run status", description="How a run stands; without RUN, a line for every run.")
    parser.add_argument("run", metavar="RUN", nargs="?", help="name of a run, or path of its directory")
    parser.add_argument("-w", "--watch", action="store_true", help="show it again and again until all have ended")
    add_runs_dir(parser)
    arguments = parser.parse(argv)
    if arguments.watch:
        _watch(arguments.run, arguments.runs_dir)
    else:
        print(*_view(arguments.run, arguments.runs_dir)[0], sep="\n")
    return 0


def _watch(name: str | None, runs_dir: Path) -> None:
    """Repaint a terminal every two seconds; elsewhere print a line for each change of a state."""
    from executors._table import padded

    is_terminal = sys.stdout.isatty()
    shown: dict[str, str] = {}
    while True:
        lines, rows = _view(name, runs_dir)
        if is_terminal:
            height = max(2, shutil.get_terminal_size().lines - 1)
            # The newest runs and the counts stand at the end.
            fitting = lines if len(lines) <= height else [*lines[:1], *lines[1 - height :]]
            print("\x1b[H\x1b[J", *(line + "\n" for line in fitting), sep="", end="", flush=True)
        else:
            width = _name_width(rows)
            for row in rows:
                if shown.get(row.name) != row.state:
                    shown[row.name] = row.state
                    print(f"{datetime.now():%H:%M:%S}  {padded(row.name, width)}  {row.cells()}", flush=True)
        if all(row.has_ended for row in rows):
            return
        time.sleep(_WATCH_SECONDS)


def _view(name: str | None, runs_dir: Path) -> tuple[list[str], list[_Row]]:
    """Return lines on one run or all, and the runs themselves."""
    from executors import find_run, list_runs
    from executors._pipeline_directory import is_pipeline, stage_statuses, stage_table
    from executors.runs import ask_together

    if name is not None:
        run = find_run(name, runs_dir)
        status = run.status()
        is_going_on = status.exit_code is None
        stages = stage_statuses(run.path, goes_on=is_going_on) if is_pipeline(run.path) else []
        rows = [
            *(_Row(f"{run.name}/{stage.name}", stage.status, stage.state) for stage in stages),
            _Row(run.name, status),
        ]
        return [*fact_lines(run_facts(run, status)), *(["", *stage_table(stages)] if stages else [])], rows
    runs = list_runs(runs_dir)
    ask_together(runs)
    # A place that does not tell of many runs at once is asked about several at a time.
    with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as pool:
        rows = list(pool.map(_row, runs))
    return (list(_table(rows)) if rows else [f"no runs in {runs_dir}"]), rows


def _name_width(rows: Sequence[_Row]) -> int:
    from executors._table import display_width

    return min(_NAME_WIDTH, max((display_width(row.name) for row in rows), default=0))


def _row(run: "Run") -> _Row:
    try:
        return _Row(run.name, run.status())
    except UserError:
        return _Row(run.name, None)


def _table(rows: Sequence[_Row]) -> Iterator[str]:
    from executors._table import display_width, padded

    width = _name_width(rows)
    yield f"{'RUN':<{width}}  {'STATE':<10}  {'STEP':>6}  {'STARTED':<12}  TIME"
    for row in rows:
        # A name is pasted into the next command: it is never cut.
        fits = display_width(row.name) <= width
        if not fits:
            yield row.name
        yield f"{padded(row.name if fits else '', width)}  {row.cells()}"
    counts = Counter(row.state for row in rows)
    total = f"{len(rows)} run{'s' if len(rows) > 1 else ''}"
    yield f"{total}: {', '.join(f'{count} {state}' for state, count in counts.most_common())}"


def run_facts(run: "Run", status: "RunStatus | None" = None) -> dict[str, object]:
    """Return how a run stands, by label; none for what there is nothing to say of."""
    status = status or run.status()
    return {
        "run": run.name,
        "state": status.state,
        "reason": status.reason and mask(status.reason),
        "exit code": status.exit_code,
        "step": status.step,
        "attempt": status.attempt if status.attempt > 1 else None,
        "started": status.started and f"{status.started:%Y-%m-%d %H:%M:%S}",
        "time": _duration(status),
        "place": run.place(),
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


def _started(status: "RunStatus | None") -> str:
    """Return the time of the day, or the year where that was long ago."""
    if status is None or status.started is None:
        return "-"
    is_recent = datetime.now(status.started.tzinfo) - status.started < timedelta(days=180)
    return f"{status.started:%b %d %H:%M}" if is_recent else f"{status.started:%Y-%m-%d}"


def _duration(status: "RunStatus") -> str:
    if status.started is None or (status.ended is None and status.exit_code is not None):
        return "-"  # nobody has seen the end of a lost run
    end = status.ended or datetime.now(status.started.tzinfo)
    passed = max(timedelta(0), end - status.started)  # a clock may have been set back
    minutes, seconds = divmod(passed.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{passed.days}d {hours}h" if passed.days else f"{hours}:{minutes:02}:{seconds:02}"
