"""Starting a run and, unless it is detached, staying with it."""

import contextlib
import dataclasses
import os
import sys
import time

from executors._folding import FOLDING_SECONDS, LineFolder
from executors._logs import LogReader
from executors._standing import ENDED, POLL_SECONDS, Standing
from executors._state import State, read_state, write_state
from executors.job import Job
from neva_recipes.config import RunError

__all__ = ["start"]


def start(job: Job, lock: int, *, detach: bool) -> None:
    """Start the job of a written run directory; unless detached, print its log until it has ended.

    In the foreground Ctrl-C cancels the run. An end of whoever reads what is printed does so too, unless the run
    outlives the command. If the process is killed, the executor's side sees its lifeline end.

    Args:
        job: What to start; its state is `created`.
        lock: File descriptor that holds the lock of the run directory.
        detach: Return once the run has started, or waits for resources.

    Raises:
        RunError: It cannot be started.
    """
    if detach:
        _start(job, lock, None)
        return
    log = job.run_dir / "logs" / "joined.log"
    reader = LogReader(log, log.stat().st_size if log.exists() else 0)
    read_end, write_end = os.pipe()
    try:
        try:
            _start(job, lock, read_end)
        finally:
            os.close(read_end)
        try:
            _show(job, reader)
        except BrokenPipeError:
            _leave(job)
            raise
    finally:
        os.close(write_end)


def _leave(job: Job) -> None:
    """Say what becomes of a run whose output nobody reads any more, and see to it."""
    what = "goes on" if job.executor.outlives_command else "is cancelled"
    print(f"run {job.run_dir.name} {what}: nobody reads what it prints any more", file=sys.stderr, flush=True)
    if not job.executor.outlives_command:
        with contextlib.suppress(RunError):  # it has just ended by itself
            Standing(job.run_dir).request_cancel(False)


def _start(job: Job, lock: int, lifeline: int | None) -> None:
    try:
        job.executor.start(job, lock=lock, lifeline=lifeline)
    except RunError as error:
        with contextlib.suppress(OSError):
            failed = dataclasses.replace(read_state(job.run_dir), state="failed", exit_code=1, reason=str(error))
            write_state(job.run_dir, failed)
        raise


def _show(job: Job, reader: LogReader) -> None:
    standing, name, screen = Standing(job.run_dir), job.run_dir.name, _Screen(job.layout.world_size)
    interrupts, handled = 0, 0
    told = ""
    while True:
        try:
            if interrupts > handled:
                handled = interrupts
                _cancel(standing, name, force=interrupts > 1)
            while (state := standing.state()).state not in ENDED:
                waiting = _waiting(name, state)
                # A place that does not say for a moment what a run waits for is no news.
                if waiting and waiting != told and (state.reason or not told):
                    print(waiting, file=sys.stderr, flush=True)
                    told = waiting
                elif not waiting:
                    told = ""
                screen.show(reader.read_lines())
                time.sleep(POLL_SECONDS)
            screen.show(reader.read_lines() + reader.read_rest(), is_last=True)
            return
        except KeyboardInterrupt:
            interrupts += 1


def _waiting(name: str, state: State) -> str:
    """Return a line on what a queued run waits for; nothing of another."""
    if state.state != "queued":
        return ""
    return f"run {name} is queued: {state.reason}" if state.reason else f"run {name} is queued"


def _cancel(standing: Standing, name: str, *, force: bool) -> None:
    try:
        standing.request_cancel(force)
    except RunError:  # it has just ended by itself
        return
    if not force:
        print(f"cancelling run {name}; press Ctrl-C again to kill it at once", file=sys.stderr, flush=True)


class _Screen:
    """Prints the lines of a job, those of several ranks folded."""

    def __init__(self, world_size: int) -> None:
        self._folder = LineFolder(world_size) if world_size > 1 else None
        self._flushed = time.monotonic()

    def show(self, lines: list[str], *, is_last: bool = False) -> None:
        """Print lines, or keep them for a moment until other ranks have printed the same."""
        if self._folder is not None:
            lines = list(self._folder.feed(lines))
            if is_last or time.monotonic() - self._flushed >= FOLDING_SECONDS:
                lines += self._folder.flush()
                self._flushed = time.monotonic()
        encoding = sys.stdout.encoding or "utf-8"
        for line in lines:
            print(line.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
