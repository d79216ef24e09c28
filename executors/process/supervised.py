"""Base class of executors whose runs have a supervisor on this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from executors.base import Executor, Job, SupervisorEntry
from executors.script import run_directory_script
from neva_recipes.config import Range, RunError, config_dataclass
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.exit_codes import STOP_SIGNAL
from neva_recipes.run_directory.layout import joined_log
from neva_recipes.run_directory.stages import run_title

__all__ = ["SupervisedExecutor"]


@config_dataclass
class SupervisedExecutor(Executor):
    """An executor whose runs have a supervisor (`executors.process.supervisor`) on this machine.

    Attributes:
        launcher: Module that the supervisor runs instead of the ranks and that has another program start them; `None`
            if the supervisor starts the ranks.
    """

    takes_stop: ClassVar[bool] = True
    supervisor_entries: ClassVar[Mapping[str, type]] = processes.IDENTITY
    launcher: ClassVar[str | None] = None

    grace_seconds: Annotated[float, Range(minimum=0, maximum=3600)] = 10.0
    """Seconds between asking the ranks to stop (SIGTERM) and killing them (SIGKILL)."""

    def script(self, job: Job) -> str:
        """Return a shell script that writes the run directory if it is missing and starts the job in the foreground."""
        return run_directory_script(job, (sys.executable, "-P", "-m", "executors"))

    def start(self, job: Job, *, lock: int, lifeline: int | None) -> None:
        """Start the supervisor of the job and return once it has started the ranks.

        Raises:
            RunError: The supervisor could not be started.
        """
        command = [sys.executable, "-P", "-m", "executors.process.supervisor", str(job.run_dir)]
        if self.launcher is not None:
            command += ["--launcher", self.launcher]
        log_path = joined_log(job.run_dir)
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
                raise RunError(f"run {run_title(job.run_dir)} cannot be started: {error}") from None
            finally:
                os.close(ready_write)
            with open(ready, encoding="utf-8", errors="replace", closefd=False) as pipe:
                answer = pipe.readline().strip()
            # The process forks and exits at once, so this waits for no rank.
            process.wait()
        finally:
            os.close(ready)
        if answer != "ok":
            reason = answer.removeprefix("error: ") or f"its supervisor ended at once, see {log_path}"
            raise RunError(f"run {run_title(job.run_dir)} cannot be started: {reason}")

    @classmethod
    def is_alive(cls, supervisor: SupervisorEntry) -> bool | None:
        """Return whether the supervisor process still exists; `None` if it is on another machine."""
        return processes.is_alive(supervisor)

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: SupervisorEntry, *, force: bool) -> None:
        """Ask the supervisor to stop the run, and return at once; with `force` it kills the ranks without grace.

        Raises:
            RunError: The supervisor is on another machine or belongs to another user.
        """
        _send(run_dir, supervisor, signal.SIGQUIT if force else signal.SIGTERM)

    @classmethod
    def request_stop(cls, run_dir: Path, supervisor: SupervisorEntry) -> None:
        """Make the supervisor ask the ranks to save and end, and return at once.

        Raises:
            RunError: The supervisor is on another machine or belongs to another user.
        """
        _send(run_dir, supervisor, STOP_SIGNAL)


def _send(run_dir: Path, supervisor: SupervisorEntry, number: signal.Signals) -> None:
    """Send a signal to a supervisor, unless it has ended."""
    alive = processes.is_alive(supervisor)
    if alive is None:
        raise RunError(f"run {run_title(run_dir)} runs on {supervisor.get('hostname')}: cancel it there")
    if not alive:  # another process may have its process id by now
        return
    try:
        os.kill(supervisor["pid"], number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise RunError(f"run {run_title(run_dir)} belongs to another user, who alone can cancel it") from None
