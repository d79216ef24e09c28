"""What executors share whose runs are supervised on this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from executors import _process
from executors._script import run_directory_script
from executors.base import Executor
from neva_recipes.config import Range, RunError

if TYPE_CHECKING:
    from executors.job import Job

__all__ = ["SupervisedExecutor"]


@dataclass(frozen=True, kw_only=True)
class SupervisedExecutor(Executor):
    """An executor whose runs have a supervisor (`executors._supervisor`) on this machine.

    Attributes:
        launcher: Module that the supervisor runs instead of the ranks, which has others start them; none for ranks on
            this machine.
    """

    supervisor_entries: ClassVar[Mapping[str, type]] = _process.IDENTITY
    launcher: ClassVar[str | None] = None

    grace_seconds: Annotated[float, Range(minimum=0, maximum=3600)] = 10.0
    """Seconds between asking the ranks to stop (SIGTERM) and killing them (SIGKILL)."""

    def script(self, job: "Job") -> str:
        """Return shell text that writes the run directory where it is missing, and starts the job in the foreground."""
        return run_directory_script(job, (sys.executable, "-P", "-m", "executors"))

    def start(self, job: "Job", *, lock: int, lifeline: int | None) -> None:
        """Start the supervisor of the job and return once it has started the ranks.

        Raises:
            RunError: The supervisor could not be started.
        """
        command = [sys.executable, "-P", "-m", "executors._supervisor", str(job.run_dir)]
        if self.launcher is not None:
            command += ["--launcher", self.launcher]
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
        alive = _process.is_alive(supervisor)
        if alive is None:
            raise RunError(f"run {run_dir.name} runs on {supervisor.get('hostname')}: cancel it there")
        if not alive:  # another process may have its number by this time
            return
        try:
            os.kill(supervisor["pid"], signal.SIGQUIT if force else signal.SIGTERM)
        except ProcessLookupError:
            return
        except PermissionError:
            raise RunError(f"run {run_dir.name} belongs to another user, who alone can cancel it") from None
