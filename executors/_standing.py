"""How a run stands: what its state.json says, and what is known of whoever should write the next one."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import copy_context
from functools import cached_property
from pathlib import Path
from typing import Any

from executors import _process
from executors._lock import acquire_lock
from executors._state import FINAL, State, now, read_state, write_state
from executors.base import Executor
from executors.job import executor_class, read_job_record
from neva_recipes.config import Matches, RunError, UserError, describe_type

__all__ = ["ENDED", "POLL_SECONDS", "Standing", "ask_together", "request_cancel_together"]

ENDED = (*FINAL, "lost")
"""States after which there is nothing to wait for."""

POLL_SECONDS = 0.1
"""Seconds between two looks at state.json of one that waits."""

_WRITERS = 16

_SUPERVISED = ("queued", "running")
_EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 130, "lost": 1}


class Standing:
    """Looks at one run, as often as it is asked; the place where it runs is asked less often if that is dear.

    Args:
        path: The run directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked: State | None = None
        self._answer: tuple[bool | None, State | None] = (True, None)
        self._asked_at = 0.0

    def state(self) -> State:
        """Return how the run stands now: `lost` where nothing is left that could change what is written.

        Raises:
            RunError: job.json cannot be read.
        """
        while True:
            written = self._read()
            alive, told = self._ask(written)
            if alive is not False and told is None:
                return written
            if self._read() == written:
                break  # else it went on between the two looks
        if told is not None:
            return self._record(written, told)
        return _lost(written, "its supervisor is gone: killed, or the machine went down")

    def has_ended(self) -> bool:
        """Return whether nothing of the run is left to wait for.

        Raises:
            RunError: job.json cannot be read.
        """
        return self.state().state in ENDED

    def request_cancel(self, force: bool) -> None:
        """Ask the run to stop, and return at once.

        Raises:
            RunError: It has not been started or has ended, or cannot be reached from here.
        """
        self._executor.request_cancel(self._path, self._cancellable().supervisor, force=force)

    def _cancellable(self) -> State:
        """Return the state of a run that can be cancelled, once it has been started.

        Raises:
            RunError: It has not been started or has ended.
        """
        while (state := self.state()).state == "created" and state.supervisor:
            time.sleep(POLL_SECONDS)  # it is being started
        if state.state == "created":
            raise RunError(f"run {self._path.name} has not been started")
        if state.state not in _SUPERVISED:
            why = f": {state.reason}" if state.state == "lost" else ""
            raise RunError(f"run {self._path.name} has already ended: {state.state}{why}")
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
        """Return what is wrong with the entry by which whoever supervises the run is known; none if it will do."""
        entries: Mapping[str, type | Matches] = {}
        if written.state == "created" and written.supervisor:
            entries = _process.IDENTITY
        elif written.state in _SUPERVISED:
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
        """Return whether what should write the next state is alive, and what the place says of the run instead."""
        if written.state == "created" and written.supervisor:
            alive = _process.is_alive(written.supervisor)
            # Of one that starts it on another machine the lock tells, which it holds.
            return (self._is_locked() if alive is None else alive), None
        if written.state not in _SUPERVISED:
            return True, None
        executor = self._executor
        if self._is_due(written):
            alive = executor.is_alive(written.supervisor)
            # Of a run that waits only the place knows for what.
            asks_outcome = alive is False or written.state == "queued"
            told = executor.outcome(self._path, written.supervisor) if asks_outcome else None
            self._asked, self._asked_at, self._answer = written, time.monotonic(), (alive, told)
        return self._answer

    def _is_locked(self) -> bool | None:
        """Return whether somebody holds the lock of the run; none if that cannot be known here."""
        try:
            lock = acquire_lock(self._path)
        except OSError:
            return None
        if lock is not None:
            os.close(lock)
        return lock is None

    def _is_due(self, written: State) -> bool:
        """Return whether the place is to be asked again of a run that it supervises."""
        return written != self._asked or time.monotonic() - self._asked_at >= self._executor.answer_seconds

    def _record(self, written: State, told: State) -> State:
        """Return what the place says, completed by what was written; a final state is written down."""
        code = _EXIT_CODES.get(told.state) if told.exit_code is None else told.exit_code
        told = dataclasses.replace(
            told,
            attempt=written.attempt,
            exit_code=code,
            started=told.started or written.started,
            supervisor=written.supervisor,
        )
        if told.state not in FINAL:
            return told
        told = dataclasses.replace(told, ended=told.ended or now())
        # A directory that cannot be written is asked about again the next time.
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


def ask_together(standings: Iterable[Standing]) -> None:
    """Ask each place that can tell of many runs at once how some stand; `state` then goes by that.

    What they say of runs that have ended is written down, several at a time.

    A run whose job.json cannot be read is passed over: `state` tells of it.
    """
    places: dict[type[Executor], list[tuple[Standing, State]]] = {}
    for standing in standings:
        with contextlib.suppress(UserError):
            written = standing._read()
            if written.state in _SUPERVISED and standing._is_due(written):
                places.setdefault(standing._executor, []).append((standing, written))
    for executor, due in places.items():
        if context := executor.asking_together([written.supervisor for _, written in due]):
            from concurrent.futures import ThreadPoolExecutor  # not for looks at recipes, which load this module too

            # What has ended is written down, and those answers must not grow old by it.
            with context, ThreadPoolExecutor(_WRITERS) as pool:
                settled = [pool.submit(copy_context().run, standing.state) for standing, _ in due]
            for future in settled:
                with contextlib.suppress(UserError):
                    future.result()


def request_cancel_together(standings: Sequence[Standing], force: bool) -> dict[Path, RunError]:
    """Ask runs to stop, those of one place by as few requests as it takes, and return at once.

    Returns:
        Why it cannot be asked, of each run directory of which it cannot.
    """
    refused: dict[Path, RunError] = {}
    places: dict[type[Executor], list[tuple[Path, dict[str, Any]]]] = {}
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
