"""Starts a run and, unless it is detached, shows its log until its end."""

import contextlib
import dataclasses
import os
import sys
import time
from datetime import datetime
from pathlib import Path

from executors.base import Job
from executors.process.folding import FOLDING_SECONDS, LineFolder
from executors.process.logs import LogReader
from executors.runs.standing import ENDED, POLL_SECONDS, Standing, ask_together
from executors.warnings import notes_of, tell_warnings, warnings_of
from neva_recipes.config import RunError, how_many
from neva_recipes.interruption import command_tells_ends
from neva_recipes.run_directory.layout import CHECKPOINTS, joined_log
from neva_recipes.run_directory.metrics import trained_steps
from neva_recipes.run_directory.names import list_checkpoints, listed_step
from neva_recipes.run_directory.progress import has_trained_since
from neva_recipes.run_directory.stages import run_title, stage_directories
from neva_recipes.run_directory.state import State, read_state, write_state
from neva_recipes.terminal import OutputLost, print_line, print_log, tell

__all__ = ["require_foreground", "start", "unsaved_steps"]


def require_foreground(*, detach: bool, check: bool) -> None:
    """Raise `RunError` if a run shall be checked whose end is not waited for."""
    if detach and check:
        raise RunError("check: with detach the run goes on after the call, so its end is not known: leave out one")


def start(job: Job, lock: int, *, detach: bool, quiet: bool, check: bool) -> None:
    """Print the warnings of a job's plan and start the job of a written run directory; unless detached, print its log.

    In the foreground Ctrl-C stops the run: steps that no checkpoint holds are saved first, however long that takes, and
    a second Ctrl-C kills it at once. A closed pipe on standard output cancels the run, unless it outlives the command.
    If this process is killed, the executor notices the end of its lifeline.

    Args:
        job: The job, in state `created`.
        lock: File descriptor that holds the lock of the run directory.
        detach: Return once the run has started or waits for resources, instead of at its end.
        quiet: Print no warnings, and not how the run has ended.
        check: Raise an error unless the run has succeeded.

    Raises:
        KeyboardInterrupt: Ctrl-C has stopped the run, which Python code has started; it has ended.
        RunError: It cannot be started; with `check`, it has not succeeded.
    """
    if not quiet:
        tell_warnings([warning.line for warning in warnings_of(job.plan)], [note.line for note in notes_of(job.plan)])
    if detach:
        _start(job, lock, None)
        return
    log = joined_log(job.run_dir)
    reader = LogReader(log, log.stat().st_size if log.exists() else 0)
    read_end, write_end = os.pipe()
    try:
        try:
            _start(job, lock, read_end)
        finally:
            os.close(read_end)
        try:
            is_interrupted = _show(job, reader)
        except (BrokenPipeError, OutputLost):
            _leave(job)
            raise
    finally:
        os.close(write_end)
    _conclude(job.run_dir, is_interrupted=is_interrupted, check=check, quiet=quiet)


def _leave(job: Job) -> None:
    """Cancel a run whose output cannot be printed any more, unless it outlives the command; print what happens."""
    what = "goes on" if job.executor.outlives_command else "is cancelled"
    print_line(f"run {run_title(job.run_dir)} {what}: nobody reads what it prints any more", sys.stderr)
    if not job.executor.outlives_command:
        with contextlib.suppress(RunError):  # the run has just ended by itself
            Standing(job.run_dir).request_cancel(False)


def _start(job: Job, lock: int, lifeline: int | None) -> None:
    try:
        job.executor.start(job, lock=lock, lifeline=lifeline)
    except RunError as error:
        with contextlib.suppress(OSError):
            failed = dataclasses.replace(read_state(job.run_dir), state="failed", exit_code=1, reason=str(error))
            write_state(job.run_dir, failed)
        raise


def _show(job: Job, reader: LogReader) -> bool:
    """Print the log of a run until it has ended, and return whether Ctrl-C was pressed meanwhile."""
    standing, name, screen = Standing(job.run_dir), run_title(job.run_dir), _Screen(job.layout.world_size)
    interrupts, handled = 0, 0
    told = ""
    while True:
        try:
            if interrupts > handled:
                handled = interrupts
                _interrupt(standing, job.run_dir, is_first=interrupts == 1)
            while (state := standing.state()).state not in ENDED:
                waiting = _waiting(name, state)
                # If the backend briefly gives no reason for waiting, nothing new is printed.
                if waiting and waiting != told and (state.reason or not told):
                    print_line(waiting, sys.stderr)
                    told = waiting
                elif not waiting:
                    told = ""
                screen.show(reader.read_lines())
                time.sleep(POLL_SECONDS)
            screen.show(reader.read_lines() + reader.read_rest(), is_last=True)
            return interrupts > 0
        except KeyboardInterrupt:
            interrupts += 1


def _conclude(run_dir: Path, *, is_interrupted: bool, check: bool, quiet: bool) -> None:
    """Tell Python code how a run has ended; within a command, which tells by itself, do nothing.

    Args:
        run_dir: The run directory of a run that has ended.
        is_interrupted: Whether Ctrl-C was pressed.
        check: Whether to raise an error unless the run has succeeded.
        quiet: Whether to print nothing.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        RunError: The run has not succeeded, and `check` is set.
    """
    if command_tells_ends():
        return
    state = Standing(run_dir).state()
    has_succeeded = state.state == "succeeded" and state.exit_code == 0
    line = f"{run_title(run_dir)} succeeded: {run_dir}" if has_succeeded else _failure(run_dir, state)
    if is_interrupted:
        raise KeyboardInterrupt(line)
    if check and not has_succeeded:
        raise RunError(line)
    if quiet:
        return
    if has_succeeded or state.state == "cancelled":
        print_line(line, sys.stderr)
    else:
        tell("error", line)


def _failure(run_dir: Path, state: State) -> str:
    reason = state.reason or f"exit code {state.exit_code}"
    if state.state == "succeeded":  # it could not be started again
        return f"run {run_title(run_dir)} {reason}; it is as it was: succeeded"
    return f"run {run_title(run_dir)} {state.state}: {reason}"


def _waiting(name: str, state: State) -> str:
    """Return a line about what a queued run waits for; empty for other runs."""
    if state.state != "queued":
        return ""
    return f"run {name} is queued: {state.reason}" if state.reason else f"run {name} is queued"


def _interrupt(standing: Standing, run_dir: Path, *, is_first: bool) -> None:
    """Stop a run, with a checkpoint if it has something to save, at once if it was asked before; print what happens."""
    again, unsaved = "press Ctrl-C again to kill it at once", unsaved_steps(run_dir) if is_first else 0
    steps = how_many(unsaved, "step")
    if unsaved:
        with contextlib.suppress(RunError):  # its executor cannot ask it, or the run has just ended by itself
            standing.request_stop()
            what = f"run {run_title(run_dir)} saves {steps} that no checkpoint holds yet, and stops"
            print_line(f"{what}; {again}, without them", sys.stderr)
            return
    try:
        standing.request_cancel(not is_first)
    except RunError:  # the run has just ended by itself
        return
    if is_first:
        loss = f" without {steps} that no checkpoint holds" if unsaved else ""
        print_line(f"cancelling run {run_title(run_dir)}{loss}; {again}", sys.stderr)


def unsaved_steps(run_dir: Path) -> int:
    """Return how many steps a run has trained since its newest checkpoint; of a pipeline, all running stages.

    A run or a stage that cannot be read counts as one without steps to save.
    """
    standings = {path: Standing(path) for path in stage_directories(run_dir) or [run_dir]}
    ask_together(standings.values())
    unsaved = 0
    for path, standing in standings.items():
        with contextlib.suppress(RunError):  # the other stages can be saved all the same
            unsaved += _unsaved_since_start(path, standing.state())
    return unsaved


def _unsaved_since_start(run_dir: Path, state: State) -> int:
    if state.state != "running" or state.started is None:
        return 0
    # What an earlier attempt has trained without a checkpoint is lost already.
    if not has_trained_since(run_dir, datetime.fromisoformat(state.started)):
        return 0
    checkpoints = list_checkpoints(run_dir / CHECKPOINTS)
    saved = listed_step(checkpoints[-1]) if checkpoints else 0
    return max(0, (trained_steps(run_dir) or 0) - saved)


class _Screen:
    """Prints the lines of a job; merges equal lines of several ranks."""

    def __init__(self, world_size: int) -> None:
        self._folder = LineFolder(world_size) if world_size > 1 else None
        self._flushed = time.monotonic()

    def show(self, lines: list[str], *, is_last: bool = False) -> None:
        """Print lines, or hold them for a moment to merge them with equal lines of other ranks."""
        if self._folder is not None:
            lines = list(self._folder.feed(lines))
            if is_last or time.monotonic() - self._flushed >= FOLDING_SECONDS:
                lines += self._folder.flush()
                self._flushed = time.monotonic()
        for line in lines:
            print_log(line)
        sys.stdout.flush()
