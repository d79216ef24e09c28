"""Runs a job as processes of this machine, under a supervisor that outlives the command which started it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from executors.base import Executor
from neva_recipes.config import Layout

if TYPE_CHECKING:
    from executors.job import Job

__all__ = ["LocalExecutor"]


@dataclass(frozen=True, kw_only=True)
class LocalExecutor(Executor):
    """One process per rank on this machine."""

    kind: ClassVar[str] = "local"

    grace_seconds: float = 10.0
    """Seconds between asking the ranks to stop (SIGTERM) and killing them."""

    def check(self, layout: Layout) -> None:
        raise NotImplementedError

    def job_environment(self, layout: Layout) -> dict[str, str]:
        raise NotImplementedError

    def script(self, job: "Job") -> str:
        raise NotImplementedError

    def start(self, job: "Job", *, lock: int, lifeline: int | None) -> None:
        raise NotImplementedError

    def is_alive(self, supervisor: Mapping[str, Any]) -> bool | None:
        raise NotImplementedError

    def request_cancel(self, run_dir: Path, supervisor: Mapping[str, Any]) -> None:
        raise NotImplementedError
