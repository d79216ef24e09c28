"""Starting a run and, unless it is detached, staying with it."""

import contextlib
import dataclasses
import os
import sys
import time
from typing import TYPE_CHECKING

from executors._logs import LogReader
from executors._state import read_state, write_state
from executors.job import Job
from neva_recipes.config import RunError

if TYPE_CHECKING:
    from executors.runs import Run

__all__ = ["start"]

_POLL_SECONDS = 0.1


def start(run: "Run", job: Job, lock: int, *, detach: bool) -> None:
    """Start the job of a written run directory; unless detached, print its log until it has ended.

    In the foreground the run lives no longer than this call: Ctrl-C cancels it, and so does anything else that ends the
    call or the process.

    Args:
        run: The run, in state `created`.
        job: What to start.
        lock: File descriptor that holds the lock of the run directory.
        detach: Return once the run has started.

    Raises:
        RunError: It cannot be started.
    """
    if detach:
        _start(run, job, lock, None)
        return
    log = run.path / "logs" / "joined.log"
    reader = LogReader(log, log.stat().st_size if log.exists() else 0)
    read_end, write_end = os.pipe()
    try:
        try:
            _start(run, job, lock, read_end)
        finally:
            os.close(read_end)
        try:
            _show(run, reader)
        except BrokenPipeError:
            print(f"run {run.name} is cancelled: nobody reads what it prints any more", file=sys.stderr, flush=True)
            raise
    finally:
        os.close(write_end)


def _start(run: "Run", job: Job, lock: int, lifeline: int | None) -> None:
    try:
        job.executor.start(job, lock=lock, lifeline=lifeline)
    except RunError as error:
        with contextlib.suppress(OSError):
            write_state(
                run.path, dataclasses.replace(read_state(run.path), state="failed", exit_code=1, reason=str(error))
            )
        raise


def _show(run: "Run", reader: LogReader) -> None:
    interrupts, handled = 0, 0
    while True:
        try:
            if interrupts > handled:
                handled = interrupts
                _cancel(run, force=interrupts > 1)
            while not run.has_ended():
                _print(reader.read_lines())
                time.sleep(_POLL_SECONDS)
            _print(reader.read_lines() + reader.read_rest())
            return
        except KeyboardInterrupt:
            interrupts += 1


def _cancel(run: "Run", *, force: bool) -> None:
    try:
        run.request_cancel(force)
    except RunError:  # it has just ended by itself
        return
    if not force:
        print(f"cancelling run {run.name}; press Ctrl-C again to kill it at once", file=sys.stderr, flush=True)


def _print(lines: list[str]) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        print(line.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
