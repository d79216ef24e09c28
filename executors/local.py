"""Runs a job as processes of this machine, under a supervisor that can outlive the command which started it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from executors import _process
from executors._gpu import local_gpu_type
from executors._script import run_directory_script
from executors.base import Executor
from neva_recipes.config import Range, RunError
from neva_recipes.plan import Layout

if TYPE_CHECKING:
    from executors.job import Job

__all__ = ["LocalExecutor"]


@dataclass(frozen=True, kw_only=True)
class LocalExecutor(Executor):
    """One process per rank on this machine."""

    kind: ClassVar[str] = "local"

    grace_seconds: Annotated[float, Range(minimum=0, maximum=3600)] = 10.0
    """Seconds between asking the ranks to stop (SIGTERM) and killing them (SIGKILL)."""

    def check(self, layout: Layout) -> None:
        """Raise `RunError` if the job is not for one machine, or this one is not Linux."""
        if layout.num_nodes != 1:
            raise RunError(
                f"trainer.num_nodes={layout.num_nodes}: the local executor runs on one machine; "
                "set trainer.num_nodes=1 or take an executor of a cluster"
            )
        if not sys.platform.startswith("linux"):
            raise RunError(f"the local executor needs Linux, this is {sys.platform}")

    def gpu_type(self) -> str | None:
        """Return the type of this machine's GPUs, if the driver names one that is in the table."""
        return local_gpu_type()

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env`, with unbuffered output and a fair share of the cores where the user has not chosen."""
        cores = len(os.sched_getaffinity(0))
        defaults = {
            "OMP_NUM_THREADS": str(max(1, cores // layout.processes_per_node)),
            "PYTHONUNBUFFERED": "1",  # output goes to a pipe, and is to be seen as it comes
        }
        return {name: value for name, value in defaults.items() if name not in os.environ} | self.env

    def script(self, job: "Job") -> str:
        """Return shell text that writes the run directory where it is missing, and starts the job in the foreground."""
        return run_directory_script(job, (sys.executable, "-P", "-m", "executors"))

    def start(self, job: "Job", *, lock: int, lifeline: int | None) -> None:
        """Start the supervisor of the job and return once it has started the ranks.

        Raises:
            RunError: The supervisor could not be started.
        """
        command = [sys.executable, "-P", "-m", "executors._supervisor", str(job.run_dir)]
        log_path = job.run_dir / "logs" / "joined.log"
        ready, ready_write = os.pipe()
        try:
            try:
                with log_path.open("ab") as log:
                    process = subprocess.Popen(
                        command if lifeline is None else [*command, "--attached"],
                        stdin=subprocess.DEVNULL if lifeline is None else lifeline,
                        stdout=ready_write,
                        stderr=log,
                        cwd=job.cwd,
                        env={**os.environ, **job.env},
                        pass_fds=(lock,),
                        start_new_session=True,
                    )
            except OSError as error:
                raise RunError(f"run {job.run_dir.name} cannot be started: {error}") from None
            finally:
                os.close(ready_write)
            with open(ready, encoding="utf-8", errors="replace", closefd=False) as pipe:
                answer = pipe.readline().strip()
            # It forks and is gone: this waits for no rank.
            process.wait()
        finally:
            os.close(ready)
        if answer != "ok":
            reason = answer.removeprefix("error: ") or f"its supervisor ended at once, see {log_path}"
            raise RunError(f"run {job.run_dir.name} cannot be started: {reason}")

    @classmethod
    def is_alive(cls, supervisor: Mapping[str, Any]) -> bool | None:
        """Return whether the supervisor process still exists; none if it is on another machine."""
        return _process.is_alive(supervisor)

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: Mapping[str, Any], *, force: bool) -> None:
        """Ask the supervisor to stop the run, and return at once; with `force` it kills the ranks without grace.

        Raises:
            RunError: The supervisor is on another machine or belongs to another user.
        """
        if _process.is_alive(supervisor) is None:
            raise RunError(f"run {run_dir.name} runs on {supervisor.get('hostname')}: cancel it there")
        try:
            os.kill(supervisor["pid"], signal.SIGQUIT if force else signal.SIGTERM)
        except ProcessLookupError:
            return
        except PermissionError:
            raise RunError(f"run {run_dir.name} belongs to another user, who alone can cancel it") from None
