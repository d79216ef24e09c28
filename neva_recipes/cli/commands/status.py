"""Shows the state of runs: `nemo-run status`."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from neva_recipes.cli._chosen import choose_run
from neva_recipes.cli.arguments import StrictParser, UsageError, add_runs_dir
from neva_recipes.cli.report.results import duration_text, result_facts
from neva_recipes.config import PlainTable, UserError
from neva_recipes.secrets import mask, secret_values
from neva_recipes.terminal import one_line, output_lines, print_document, print_text

if TYPE_CHECKING:
    from executors import Run, RunStatus

__all__ = ["fact_lines", "run_document", "run_facts", "status_command"]

T = TypeVar("T")

_WIDTH = 80
_WATCH_SECONDS = 2.0
_QUESTIONS_AT_ONCE = 8
_UNREADABLE = "unreadable"
_NAME = "RUN"
_PATTERN = "*?["
"""Characters that make a name a pattern."""


@dataclass(frozen=True)
class _Row:
    """A run as the table shows it; `status` is `None` if the run cannot be read."""

    name: str
    status: "RunStatus | None"

    stage_state: str | None = None
    """How a stage of a pipeline stands there; `None` for another run."""

    loss: float | None = None
    """Last training loss; `None` where it is not shown."""

    launched: datetime | None = None
    """When a run that has been resumed was launched: the table is in that order."""

    @property
    def state(self) -> str:
        return self.stage_state or (self.status.state if self.status else _UNREADABLE)

    @property
    def has_ended(self) -> bool:
        # The pipeline tells what follows the end of a stage.
        return self.status is None or self.status.exit_code is not None or self.stage_state is not None

    def cells(self) -> dict[str, str]:
        """Return its cells, by the head of the column."""
        step = self.status.step if self.status else None
        return {
            _NAME: self.name,
            "STATE": self.state,
            "STEP": "-" if step is None else str(step),
            "LOSS": "-" if self.loss is None else f"{self.loss:.4g}",
            "STARTED": _moment_text(self.launched or (self.status.started if self.status else None)),
            "TIME": _duration(self.status) if self.status else "-",
        }


def status_command(argv: Sequence[str]) -> int:
    """Print the state of one run, or a table of all: `nemo-run status [RUN] [--watch]`."""
    parser = StrictParser("nemo-run status", description="How a run stands; without RUN, a line for every run.")
    parser.add_argument("run", metavar="RUN", nargs="?", help="name of a run, latest, a pattern, or a path")
    parser.add_argument("-w", "--watch", action="store_true", help="show it again and again until all have ended")
    add_runs_dir(parser)
    parser.add_argument("--format", metavar="F", choices=("text", "json"), default="text", help="text or json (text)")
    arguments = parser.parse(argv)
    if arguments.watch and arguments.format == "json":
        raise UsageError("--format json: one document, which does not go on: leave --watch out")
    run = None if arguments.run is None else choose_run(arguments.run, arguments.runs_dir)
    if arguments.format == "json":
        print(_document(run, arguments.runs_dir))
    elif arguments.watch:
        _watch(run, arguments.runs_dir)
    else:
        print_text("\n".join(_view(run, arguments.runs_dir)[0]))
    return 0


def _watch(run: "Run | None", runs_dir: Path) -> None:
    """Repaint a terminal every two seconds; elsewhere, print a line for each change of a state."""
    is_terminal = sys.stdout.isatty()
    shown: dict[str, str] = {}
    while True:
        lines, rows = _view(run, runs_dir)
        if is_terminal:
            lines = [*output_lines(lines)]
            height = max(2, shutil.get_terminal_size().lines - 1)
            # The newest runs and the counts are at the end.
            fitting = lines if len(lines) <= height else [*lines[:1], *lines[1 - height :]]
            print_document("\x1b[H\x1b[J")
            print(*fitting, sep="\n", flush=True)
        else:
            for row in rows:
                if shown.get(row.name) != row.state:
                    shown[row.name] = row.state
                    print(f"{datetime.now():%H:%M:%S}", *row.cells().values(), sep="  ", flush=True)
        if all(row.has_ended for row in rows):
            return
        time.sleep(_WATCH_SECONDS)


def _view(run: "Run | None", runs_dir: Path) -> tuple[list[str], list[_Row]]:
    """Return lines on one run or all, and the runs themselves."""
    from executors.pipelines.directory import run_warnings, stage_statuses, stage_table
    from executors.pipelines.spec import is_pipeline
    from executors.runs.paths import runs_above

    if run is not None:
        status = run.status()
        is_going_on = status.exit_code is None
        stages = stage_statuses(run.path, goes_on=is_going_on) if is_pipeline(run.path) else []
        rows = [
            *(_Row(f"{run.name}/{stage.name}", stage.status, stage.state) for stage in stages),
            _Row(run.name, status),
        ]
        results = run.results()
        facts = {**run_facts(run, status), **result_facts(results)}
        above = [] if results.above_guessing is None else [results.above_guessing.line]
        facts["warnings"] = [*above, *map(one_line, run_warnings(run))] or None
        return [*fact_lines(facts), *(["", *stage_table(stages)] if stages else [])], rows
    rows = _of_all(runs_dir, _row)
    return (list(_table(rows)) if rows else [f"no runs in {runs_dir}{runs_above(runs_dir)}"]), rows


def _of_all(runs_dir: Path, look: "Callable[[Run], T]") -> list[T]:
    """Return the result of `look` for each run, oldest first."""
    from executors import list_runs
    from executors.runs.together import ask_together

    runs = list_runs(runs_dir)
    ask_together(runs)
    # Executors that cannot report on many runs at once are asked about several in parallel.
    with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as pool:
        return list(pool.map(look, runs))


def _row(run: "Run") -> _Row:
    from neva_recipes.run_directory.metrics import last_loss

    try:
        status = run.status()
        return _Row(one_line(run.name), status, loss=last_loss(run.path), launched=_launched(run, status))
    except UserError:
        return _Row(one_line(run.name), None)


def _launched(run: "Run", status: "RunStatus") -> datetime | None:
    """Return when a resumed run was first launched; `None` for another run, or if unknown."""
    if status.attempt == 1 or status.started is None:
        return None
    with contextlib.suppress(ValueError):  # an edited record
        return datetime.fromisoformat(run.record()["created"]).astimezone()
    return None


def _table(rows: Sequence[_Row]) -> Iterator[str]:
    from neva_recipes.table import display_width, table_lines

    cells = [row.cells() for row in rows]
    others = [max(map(display_width, (name, *(row[name] for row in cells)))) for name in cells[0] if name != _NAME]
    room = _WIDTH - sum(others) - 2 * len(others)
    names = _fitting([row.name for row in rows], room)
    shown = [{**row, _NAME: name}.values() for row, name in zip(cells, names, strict=True)]
    yield from table_lines([[*cells[0]], *map(list, shown)], 2)
    counts = Counter(row.state for row in rows)
    total = f"{len(rows)} run{'s' if len(rows) > 1 else ''}"
    yield f"{total}: {', '.join(f'{count} {state}' for state, count in counts.most_common())}"


def _fitting(names: Sequence[str], room: int) -> list[str]:
    """Return the names for a column: a pattern in place of one that is too long, if it matches no other.

    It can be pasted as the name can, for commands take patterns. The time of the launch stays, at the end.
    """
    from neva_recipes.table import display_width

    found: dict[tuple[int, int], Counter[tuple[str, str]]] = {}
    shown = []
    for name in names:
        start = end = max(1, (room - 1) // 2)
        while start > 1 and display_width(f"{name[:start]}*{name[-end:]}") > room:
            start = end = start - 1
        ends = name[:start], name[-end:]
        if (start, end) not in found:
            found[start, end] = Counter((one[:start], one[-end:]) for one in names if len(one) >= start + end)
        is_clear = found[start, end][ends] == 1 and not set(_PATTERN) & set(name)
        shown.append("*".join(ends) if display_width(name) > room and is_clear else name)
    return shown


def run_facts(run: "Run", status: "RunStatus | None" = None) -> dict[str, object]:
    """Return the state of a run, by label; `None` if there is nothing to say."""
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


def run_document(run: "Run") -> PlainTable:
    """Return the state and the results of a run, for JSON."""
    status, checkpoint = run.status(), run.newest_checkpoint()
    return {
        "schema": 1,
        "run": run.name,
        "directory": str(run.path),
        "state": status.state,
        "reason": status.reason,
        "exit_code": status.exit_code,
        "step": status.step,
        "attempt": status.attempt,
        "started": status.started and status.started.isoformat(),
        "ended": status.ended and status.ended.isoformat(),
        "checkpoint": checkpoint and str(checkpoint),
        "results": run.results().to_plain(),
    }


def _document(run: "Run | None", runs_dir: Path) -> str:
    """Return one run or all runs as JSON."""
    document = {"schema": 1, "runs": _of_all(runs_dir, _run_of_all)} if run is None else run_document(run)
    return mask(json.dumps(document, indent=2, allow_nan=False), secret_values(os.environ))


def _run_of_all(run: "Run") -> PlainTable:
    """Return the state of a run for JSON; for one that cannot be read, its name and that it is unreadable."""
    try:
        return run_document(run)
    except UserError:
        return {"run": run.name, "state": _UNREADABLE}


def fact_lines(facts: Mapping[str, object], indent: str = "") -> Iterator[str]:
    """Yield a line for each label that has a value, and one for each item of a list."""
    width = max(len(name) for name in facts) + 2
    for name, value in facts.items():
        items = value if isinstance(value, list) else [] if value is None else [value]
        for number, item in enumerate(items):
            label = "" if number else f"{name}:"
            yield f"{indent}{label:<{width}}{one_line(str(item))}"


def _moment_text(moment: datetime | None) -> str:
    """Return the day and time, or the date with its year if that was long ago."""
    if moment is None:
        return "-"
    is_recent = datetime.now(moment.tzinfo) - moment < timedelta(days=180)
    return f"{moment:%b %d %H:%M}" if is_recent else f"{moment:%Y-%m-%d}"


def _duration(status: "RunStatus") -> str:
    passed = status.duration()
    return "-" if passed is None else duration_text(passed)
