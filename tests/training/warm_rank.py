"""Ranks that begin with their libraries in place: forks of a process that has imported them once.

Importing takes four seconds of a core, a short training a fraction of one. A fork has the environment of a process that
was started for it, but what libraries read as they are imported is that of the first.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

_OWN = {"PYTEST_CURRENT_TEST"}
"""What differs from test to test, and no library reads."""


class WarmRanks:
    """Starts ranks as forks."""

    def __init__(self) -> None:
        """Note the environment and the folder, which every rank must have in common but for what a launcher sets."""
        self._common = _common()
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["pytest", "tests.training.rank_libraries"])

    def can_start(self) -> bool:
        """Whether a fork would be what a process started now would be."""
        return _common() == self._common

    def start(self, module: str, arguments: list[str], environment: dict[str, str], log: Path) -> "WarmRank":
        """Run a module in a session of its own, as `python -m` does, with its output appended to a file."""
        process = self._context.Process(target=_run, args=(module, arguments, environment, str(log)))
        process.start()
        return WarmRank(process)


class WarmRank:
    """A rank with what `subprocess.Popen` offers of a process."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        """Return the exit code, or `None` while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a rank", timeout)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _common() -> tuple[Path, dict[str, str]]:
    return Path.cwd(), {name: value for name, value in os.environ.items() if name not in _OWN}


def _run(module: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    os.setsid()
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
