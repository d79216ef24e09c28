"""The function that submitit calls in every task of a Slurm job: runs one rank, its signals and its output."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission

from executors.process.linux import become_subreaper
from executors.process.logs import LogWriter
from executors.process.loop import RankLoop
from executors.process.rank import Rank, trains
from executors.process.surroundings import SLURM, rank_environment
from executors.slurm.guard import start_guard
from executors.slurm.run import (
    LOOK_SECONDS,
    await_submission,
    begin,
    has_failed,
    is_asked_to_stop,
    is_superseded,
    note_end,
    own_job_id,
)
from neva_recipes.run_directory.exit_codes import EXIT_STOPPED, STOP_SIGNAL, exit_code_of
from neva_recipes.run_directory.layout import JOB_FILE, rank_log
from neva_recipes.run_directory.state import read_json
from neva_recipes.secrets import secret_values

__all__ = ["Task"]

_LONGEST_PIECE = 1000
"""Length in bytes up to which srun forwards a line in one piece."""


class Task:
    """Runs the rank that the environment gives to this task; pickled with nothing but the run directory.

    Args:
        run_dir: Path of the run directory.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def __call__(self) -> None:
        """Run the rank to its end, and end this process with its exit code.

        Does not return, because submitit would then write a result, which fails on a full disk.
        """
        code = _TaskRun(Path(self.run_dir)).run()
        sys.stdout.flush()
        sys.exit(code)

    def checkpoint(self) -> DelayedSubmission:
        """Return what to run again if the job is stopped before this task has begun: the same task."""
        return DelayedSubmission(self)


class _Output:
    """The standard output of the task: splits long lines, each piece with the prefix, because srun interleaves them."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix

    def write(self, data: bytes) -> None:
        """Write lines that begin with the prefix."""
        pieces = []
        for line in data.splitlines():
            rest = line[len(self._prefix) :]
            step = _LONGEST_PIECE - len(self._prefix)
            pieces += [self._prefix + rest[at : at + step] + b"\n" for at in range(0, max(1, len(rest)), step)]
        try:
            sys.stdout.buffer.write(b"".join(pieces))
            sys.stdout.buffer.flush()
        except OSError:
            return  # a full disk costs lines of the log, not the run


class _TaskRun:
    """Runs one rank's process under its task."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._record: dict[str, Any] = read_json(run_dir / JOB_FILE)
        self._number = int(os.environ["SLURM_PROCID"])
        size = self._record["world_size"]
        prefix = f"[{self._number}] ".encode() if size > 1 else b""
        self._output = _Output(prefix)
        log = LogWriter(rank_log(run_dir, self._number))
        self._rank = Rank(self._number, log, prefix, secret_values(os.environ))
        # Programs other than the worker get SIGTERM and handle it themselves.
        self._saves = trains(self._record["argv"])
        self._asked_to_stop = False
        self._is_ending = False
        self._is_killed = False
        self._look_at = 0.0

    def run(self) -> int:
        """Run the rank, and return the exit code of the task."""
        # SIGUSR2 arrives before the time limit or a preemption: the rank is to save its work. SIGTERM arrives at every
        # process of the job: on a preemption if the cluster sends no other signal, on scancel, and when another rank
        # has failed. SIGKILL follows after a delay, in which the rank can also save.
        loop = RankLoop(self._output, (STOP_SIGNAL, signal.SIGTERM, signal.SIGCONT), self._take_signals)
        guard = start_guard()
        become_subreaper()
        if self._number == 0:
            await_submission(self._run_dir, own_job_id())
            begin(self._run_dir)
        try:
            held = frozenset({signal.SIGTERM}) if self._saves else frozenset()
            self._rank.spawn(self._command(), self._environment(), held=held)
        except OSError as error:
            message = f"rank {self._number} could not be started: {error}"
            self._output.write(message.encode() + b"\n")
            note_end(self._run_dir, self._number, 1, message)
            return 1
        os.write(guard, str(self._rank.pid).encode())  # its process id is also its session id
        loop.add(self._rank)
        while loop.goes_on:
            loop.step(1.0 if self._is_ending else LOOK_SECONDS)
            self._look()
        loop.finish()
        assert self._rank.exit_code is not None  # the rank has ended
        return self._end(self._rank.exit_code)

    def _command(self) -> list[str]:
        # Inside a container the interpreter may have another path than where the job was planned.
        program, *arguments = self._record["argv"]
        if self._record["executor"].get("python") is not None and arguments[:2] == ["-P", "-m"]:
            program = sys.executable
        return [program, *arguments, str(self._run_dir)]

    def _environment(self) -> dict[str, str]:
        own = {
            "RANK": str(self._number),
            "LOCAL_RANK": os.environ["SLURM_LOCALID"],
            "WORLD_SIZE": str(self._record["world_size"]),
            "LOCAL_WORLD_SIZE": str(self._record["processes_per_node"]),
            "NODE_RANK": os.environ["SLURM_NODEID"],
        }
        return rank_environment(os.environ, own, launcher=SLURM, chosen=self._record["env"])

    def _take_signals(self, numbers: bytes) -> None:
        if self._saves and signal.SIGTERM in numbers:
            self._is_ending, self._look_at = True, 0.0
        if STOP_SIGNAL in numbers:
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        if not self._asked_to_stop and self._is_running():
            self._asked_to_stop = True
            self._rank.send(STOP_SIGNAL)

    def _look(self) -> None:
        """Check the job: kill the rank if the job was started again or another rank failed, or ask it to stop."""
        if not self._is_running() or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + (1.0 if self._is_ending else LOOK_SECONDS)
        if is_superseded(self._run_dir, own_job_id()) or (self._is_ending and has_failed(self._run_dir)):
            self._is_killed = True
            self._rank.send(signal.SIGKILL)
        elif self._is_ending or (self._saves and is_asked_to_stop(self._run_dir, own_job_id())):
            self._ask_to_stop()

    def _is_running(self) -> bool:
        return bool(self._rank.pid) and self._rank.exit_code is None

    def _end(self, code: int) -> int:
        """Write down how the rank has ended, and return the exit code of the task."""
        # A rank that got the stop signal before it had a handler has nothing to save.
        stopped = code == EXIT_STOPPED or (self._asked_to_stop and code == -STOP_SIGNAL)
        code = -signal.SIGTERM if self._is_killed else code
        note_end(self._run_dir, self._number, EXIT_STOPPED if stopped else code)
        if code == EXIT_STOPPED:
            return 0  # on any other code srun would kill ranks that are still saving
        return exit_code_of(code)
