"""The state of a run: its state.json, and whether the supervisor that should write the next state is alive."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

from executors.base import Executor
from executors.job_record import executor_class, read_job_record
from executors.process.rank import trains
from neva_recipes.config import Matches, PlainTable, RunError, UserError, describe_type
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.exit_codes import EXIT_CANCELLED
from neva_recipes.run_directory.lock import acquire_lock
from neva_recipes.run_directory.stages import run_title, stage_directories
from neva_recipes.run_directory.standing import SUPERVISOR_GONE
from neva_recipes.run_directory.state import FINAL, UNDER_WAY, State, now, read_state, write_state

__all__ = [
    "ENDED",
    "POLL_SECONDS",
    "RunState",
    "RunStatus",
    "Standing",
    "ask_together",
    "has_begun",
    "request_cancel_together",
    "request_stop_of_each",
]

ENDED = (*FINAL, "lost")
"""States after which there is nothing to wait for."""

POLL_SECONDS = 0.1
"""Seconds between two reads of state.json while waiting."""

_WRITERS = 16

_EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": EXIT_CANCELLED, "lost": 1}


RunState = Literal["created", "queued", "running", "succeeded", "failed", "cancelled", "lost"]


@dataclass(frozen=True)
class RunStatus:
    """The status of a run.

    Attributes:
        state: created, queued (waiting for resources), running, succeeded, failed, cancelled, or lost (its supervisor
            has died without writing a final state).
        exit_code: The last attempt's exit code; `None` until it has ended. 130 when cancelled, 75 if asked to save
            its work first, 1 when lost.
        reason: One line about why it failed, was cancelled or lost, or what it waits for; for a run that has succeeded,
            why a later attempt to resume it failed before it trained; `None` otherwise.
        started: When its processes were last started.
        ended: When all of its processes had ended.
        step: Optimizer steps that it has trained; `None` before the first.
        attempt: 1 for the first start, one more for each resume.
        earlier: Total duration of the earlier attempts.
        passed: Total duration of all attempts according to the files of the run, if its end was not recorded.
    """

    state: RunState
    exit_code: int | None
    reason: str | None
    started: datetime | None
    ended: datetime | None
    step: int | None
    attempt: int
    earlier: timedelta = timedelta(0)
    passed: timedelta | None = None

    def duration(self) -> timedelta | None:
        """Return the total duration of all attempts until now; `None` if no start was recorded."""
        if self.started is None or (self.ended is None and self.exit_code is not None):
            return self.passed
        end = self.ended or datetime.now(self.started.tzinfo)
        return self.earlier + max(timedelta(0), end - self.started)  # the clock may have been set back


class Standing:
    """Determines the state of one run; caches the answers of a backend whose queries are expensive.

    Args:
        path: The run directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked: State | None = None
        self._answer: tuple[bool | None, State | None] = (True, None)
        self._asked_at = 0.0

    def state(self) -> State:
        """Return the present state of the run; `lost` if its supervisor died without writing a final state.

        A pipeline that has ended without success has succeeded once all of its stages have, resumed one by one.

        Raises:
            RunError: job.json cannot be read.
        """
        state = self._own_state()
        stages = stage_directories(self._path) if state.state in ENDED and state.state != "succeeded" else []
        with contextlib.suppress(RunError):  # the stages are shown by themselves
            found = [Standing(stage).state() for stage in stages]
            # A reason tells that a stage should have been run again, and could not be.
            if stages and all(stage.state == "succeeded" and stage.reason is None for stage in found):
                return dataclasses.replace(state, state="succeeded", exit_code=0, reason=None)
        return state

    def state_here(self) -> State | None:
        """Return the present state; `None` if it cannot be read, or only a backend that is slow to answer knows it."""
        if not self._path.is_dir():
            return None
        try:
            is_slow = self._read().state in UNDER_WAY and self._executor.answer_seconds > 0
            return None if is_slow else self.state()
        except UserError:
            return None

    def _own_state(self) -> State:
        while True:
            written = self._read()
            alive, told = self._ask(written)
            if alive is not False and told is None:
                return written
            if self._read() == written:
                break  # otherwise the state has changed in between
        if told is not None:
            return self._record(written, told)
        return _lost(written, SUPERVISOR_GONE)

    def has_ended(self) -> bool:
        """Return whether the run has ended or is lost.

        Raises:
            RunError: job.json cannot be read.
        """
        return self.state().state in ENDED

    def request_cancel(self, force: bool) -> None:
        """Ask the run to stop, and return at once.

        Raises:
            RunError: The run has not been started or has ended, or cannot be reached from here.
        """
        self._executor.request_cancel(self._path, self._cancellable().supervisor, force=force)

    def request_stop(self) -> None:
        """Ask the run to save a checkpoint and to end, and return at once.

        Raises:
            RunError: The run has not been started, is queued or has ended, trains nothing, or cannot be reached.
        """
        state = self._cancellable()
        name = run_title(self._path)
        if state.state == "queued":
            raise RunError(f"run {name} is queued and has nothing to save: cancel it without --save")
        stages = stage_directories(self._path)
        if not stages and not trains(read_job_record(self._path)["argv"]):
            raise RunError(f"run {name} trains no recipe and has nothing to save: cancel it without --save")
        place = executor_class(read_job_record(stages[0])) if stages else self._executor
        if not place.takes_stop:
            raise RunError(
                f"run {name}: the {place.kind} executor cannot ask it to save a checkpoint: cancel it without --save"
            )
        self._executor.request_stop(self._path, state.supervisor)

    def request_stop_of_stage(self) -> None:
        """Ask a stage to save a checkpoint and to end; cancels a stage that has nothing to save.

        Raises:
            RunError: The stage has ended, or cannot be reached from here.
        """
        if self.state().state == "running" and trains(read_job_record(self._path)["argv"]):
            self.request_stop()
        else:
            self.request_cancel(False)

    def _cancellable(self) -> State:
        """Return the state of a run that can be cancelled; waits while the run is being started.

        Raises:
            RunError: The run has not been started or has ended.
        """
        while (state := self.state()).state == "created" and state.supervisor:
            time.sleep(POLL_SECONDS)  # the run is being started
        if state.state == "created":
            raise RunError(f"run {run_title(self._path)} has not been started")
        if state.state not in UNDER_WAY:
            why = f": {state.reason}" if state.state == "lost" else ""
            raise RunError(f"run {run_title(self._path)} has already ended: {state.state}{why}")
        return state

    def _read(self) -> State:
        try:
            state = read_state(self._path)
        except FileNotFoundError:
            return State(state="created")
        except (OSError, ValueError) as error:
            return _lost(State(state="lost"), f"state.json cannot be read: {error}")
        problem = self._problem(state)
        return _lost(state, f"state.json is damaged: {problem}") if problem else state

    def _problem(self, written: State) -> str | None:
        """Return a problem with the entry `supervisor` of a state; `None` if it is valid."""
        entries: Mapping[str, type | Matches] = {}
        if written.state == "created" and written.supervisor:
            entries = processes.IDENTITY
        elif written.state in UNDER_WAY:
            entries = self._executor.supervisor_entries
        for name, expected in entries.items():
            value = written.supervisor.get(name)
            if isinstance(expected, Matches):
                is_right = isinstance(value, str) and expected.accepts(value)
            else:
                is_right = type(value) is expected
            if not is_right:
                words = expected if isinstance(expected, Matches) else describe_type(expected)
                return f"supervisor.{name}: expected {words}"
        return None

    def _ask(self, written: State) -> tuple[bool | None, State | None]:
        """Return whether the process that should write the next state is alive, and the backend's state of the run."""
        if written.state == "created" and written.supervisor:
            alive = processes.is_alive(written.supervisor)
            # The lock tells of a process on another machine, which holds it while it starts the run.
            return (self._is_locked() if alive is None else alive), None
        if written.state not in UNDER_WAY:
            return True, None
        executor = self._executor
        if self._is_due(written):
            alive = executor.is_alive(written.supervisor)
            # Only the backend knows what a queued run waits for.
            asks_outcome = alive is False or written.state == "queued"
            told = executor.outcome(self._path, written.supervisor) if asks_outcome else None
            self._asked, self._asked_at, self._answer = written, time.monotonic(), (alive, told)
        return self._answer

    def _is_locked(self) -> bool | None:
        """Return whether a process holds the lock of the run; `None` if this cannot be determined here."""
        try:
            lock = acquire_lock(self._path)
        except OSError:
            return None
        if lock is not None:
            os.close(lock)
        return lock is None

    def _is_due(self, written: State) -> bool:
        """Return whether to query the backend again, because the state has changed or the last answer is too old."""
        return written != self._asked or time.monotonic() - self._asked_at >= self._executor.answer_seconds

    def _record(self, written: State, told: State) -> State:
        """Return the state that the backend reports, completed from state.json; writes a final state."""
        code = _EXIT_CODES.get(told.state) if told.exit_code is None else told.exit_code
        told = dataclasses.replace(
            told,
            attempt=written.attempt,
            exit_code=code,
            started=told.started or written.started,
            earlier_seconds=written.earlier_seconds,
            supervisor=written.supervisor,
        )
        if told.state not in FINAL:
            return told
        told = dataclasses.replace(told, ended=told.ended or now())
        # If the directory cannot be written, the backend is queried again the next time.
        with contextlib.suppress(OSError):
            lock = acquire_lock(self._path)
            if lock is not None:
                try:
                    if self._read() == written:
                        write_state(self._path, told)
                finally:
                    os.close(lock)
        return told

    @cached_property
    def _executor(self) -> type[Executor]:
        return executor_class(read_job_record(self._path))


def _lost(state: State, reason: str) -> State:
    return dataclasses.replace(state, state="lost", exit_code=_EXIT_CODES["lost"], reason=reason)


def has_begun(run_dir: Path) -> bool:
    """Return whether a run has begun or may begin still; `False` if its only launch has failed or died before."""
    try:
        written = read_state(run_dir)
        is_unused = written.state in ("created", "failed") and written.started is None and written.attempt == 1
        # It is still the launch that the state names, and no process or job of an executor.
        is_of_launch = processes.IDENTITY.keys() == written.supervisor.keys()
        return not (is_unused and is_of_launch and Standing(run_dir).has_ended())
    except (OSError, ValueError, RunError):  # nothing tells of a launch that has failed
        return True


def ask_together(standings: Iterable[Standing]) -> None:
    """Query the states of many runs together if their backends support it; `state` then uses the answers.

    Writes the final states of runs that have ended, several at a time.

    Skips a run whose job.json cannot be read: `state` raises the error.
    """
    places: dict[type[Executor], list[tuple[Standing, State]]] = {}
    for standing in standings:
        with contextlib.suppress(UserError):
            written = standing._read()
            if written.state in UNDER_WAY and standing._is_due(written):
                places.setdefault(standing._executor, []).append((standing, written))
    for executor, due in places.items():
        if context := executor.asking_together([written.supervisor for _, written in due]):
            from concurrent.futures import ThreadPoolExecutor  # dry runs import this module too and do not need it

            # Final states are written in parallel, so that the answers do not become outdated meanwhile.
            with context, ThreadPoolExecutor(_WRITERS) as pool:
                settled = [pool.submit(copy_context().run, standing.state) for standing, _ in due]
            for future in settled:
                with contextlib.suppress(UserError):
                    future.result()


def request_stop_of_each(standings: Iterable[Standing]) -> dict[Path, RunError]:
    """Ask runs to save a checkpoint and to end, and return at once.

    Returns:
        The error of each run that cannot be asked, by run directory.
    """
    refused = {}
    for standing in standings:
        try:
            standing.request_stop()
        except RunError as error:
            refused[standing._path] = error
    return refused


def request_cancel_together(standings: Sequence[Standing], force: bool) -> dict[Path, RunError]:
    """Ask runs to stop, with as few requests to each backend as possible, and return at once.

    Returns:
        The error of each run that cannot be asked, by run directory.
    """
    refused: dict[Path, RunError] = {}
    places: dict[type[Executor], list[tuple[Path, PlainTable]]] = {}
    ask_together(standings)
    for standing in standings:
        try:
            supervisor = standing._cancellable().supervisor
        except RunError as error:
            refused[standing._path] = error
        else:
            places.setdefault(standing._executor, []).append((standing._path, supervisor))
    for executor, due in places.items():
        refused |= executor.request_cancel_together(due, force=force)
    return refused
