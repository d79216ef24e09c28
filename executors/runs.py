"""Runs: a directory that says what was started, how it stands, and what it printed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import fiddle as fdl

from neva_recipes.config import Recipe

__all__ = ["Run", "RunState", "RunStatus", "find_run", "list_runs"]

RunState = Literal["created", "running", "succeeded", "failed", "cancelled", "lost"]


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        state: created, running, succeeded, failed, cancelled, or lost (its supervisor is gone without a final state).
        exit_code: The run's exit code; none until it has ended. 130 when cancelled, 1 when lost.
        reason: One line on why it failed, was cancelled or lost; none otherwise.
        started: When its processes were last started.
        ended: When they had ended.
        step: Last optimizer step in its metrics; none before the first.
    """

    state: RunState
    exit_code: int | None
    reason: str | None
    started: datetime | None
    ended: datetime | None
    step: int | None


class Run:
    """One run, by its directory; works from any process on the machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.name

    def status(self) -> RunStatus:
        """Return how the run stands now."""
        raise NotImplementedError

    def logs(self, follow: bool = False, rank: int | None = None) -> Iterator[str]:
        """Return the lines of the joined log, or of one rank's, without their newlines."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop the run and return when it has stopped."""
        raise NotImplementedError

    def wait(self) -> int:
        """Return the exit code of the run once it has ended."""
        raise NotImplementedError

    def resume(self, recipe: fdl.Buildable[Recipe] | None = None, detach: bool = False) -> None:
        """Start the run again in the same directory, with its recipe or a changed one."""
        raise NotImplementedError


def find_run(name_or_path: str | Path, runs_dir: str | Path = "runs") -> Run:
    """Return the run of that directory name, run name (the newest), or path."""
    raise NotImplementedError


def list_runs(runs_dir: str | Path = "runs") -> list[Run]:
    """Return the runs of a folder, oldest first; none if the folder does not exist."""
    raise NotImplementedError
