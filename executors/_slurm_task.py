"""What submitit starts in every task of a Slurm job: one rank, its signals and its output."""

import os
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission

from executors._logs import LogWriter
from executors._process import become_subreaper, kill_children
from executors._rank import EXIT_STOPPED, STOP_SIGNAL, Rank
from executors._slurm_guard import start_guard
from executors._slurm_run import (
    LOOK_SECONDS,
    await_submission,
    begin,
    has_failed,
    is_superseded,
    note_end,
    own_job_id,
)
from executors._state import read_json
from neva_recipes.secrets import secret_values

__all__ = ["Task"]

_LONGEST_PIECE = 1000
"""Bytes of a line that srun passes on whole."""


class Task:
    """The rank of a run that the environment names; all that it holds is the run directory.

    Args:
        run_dir: Its path.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def __call__(self) -> None:
        """Run the rank to its end, and end this process with its exit code.

        A return would have submitit write a result, for which a full disk has no room.
        """
        code = _TaskRun(Path(self.run_dir)).run()
        sys.stdout.flush()
        sys.exit(code)

    def checkpoint(self) -> DelayedSubmission:
        """Return what is to be run if the job is stopped before this task has begun: the same."""
        return DelayedSubmission(self)


class _Output:
    """The standard output of the task: short pieces of lines, each behind the prefix, for srun mixes longer ones."""

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
    """One rank's process under its task."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._record: dict[str, Any] = read_json(run_dir / "job.json")
        self._number = int(os.environ["SLURM_PROCID"])
        size = self._record["world_size"]
        prefix = f"[{self._number}] ".encode() if size > 1 else b""
        self._output = _Output(prefix)
        log = LogWriter(run_dir / "logs" / f"rank-{self._number}.log")
        self._rank = Rank(self._number, log, prefix, secret_values(os.environ))
        self._selector = selectors.DefaultSelector()
        # Others than the worker end by SIGTERM, or do with it what they like.
        self._saves = "neva_model.worker" in self._record["argv"]
        self._asked_to_stop = False
        self._is_ending = False
        self._is_killed = False
        self._look_at = 0.0

    def run(self) -> int:
        """Run the rank, and return the exit code of the task."""
        self._listen()
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
        os.write(guard, str(self._rank.pid).encode())  # it leads a session
        self._selector.register(self._rank.output, selectors.EVENT_READ, self._read)
        while self._rank.exit_code is None:
            for key, _ in self._selector.select(1.0 if self._is_ending else LOOK_SECONDS):
                key.data(key.fd)
            self._look()
        kill_children()
        self._rank.read(self._output)
        self._rank.finish_log(self._output)
        return self._end(self._rank.exit_code)

    def _listen(self) -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # SIGUSR2 comes before the time limit or a preemption: the rank is to save its work. SIGTERM comes to every
        # process of the job: before a preemption where the cluster sends nothing else, on scancel, and when another
        # rank has failed. SIGKILL follows it after a while, which is time to save as well.
        for number in (signal.SIGCHLD, signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT):
            signal.signal(number, lambda *_: None)
        self._selector.register(read_end, selectors.EVENT_READ, self._take_signals)

    def _command(self) -> list[str]:
        # Inside a container the interpreter may lie elsewhere than where the job was planned.
        program, *arguments = self._record["argv"]
        if self._record["executor"].get("python") is not None and arguments[:2] == ["-P", "-m"]:
            program = sys.executable
        return [program, *arguments, str(self._run_dir)]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "RANK": str(self._number),
            "LOCAL_RANK": os.environ["SLURM_LOCALID"],
            "WORLD_SIZE": str(self._record["world_size"]),
            "LOCAL_WORLD_SIZE": str(self._record["processes_per_node"]),
            "NODE_RANK": os.environ["SLURM_NODEID"],
        }

    def _read(self, descriptor: int) -> None:
        if not self._rank.read(self._output):
            self._selector.unregister(descriptor)

    def _take_signals(self, descriptor: int) -> None:
        numbers = os.read(descriptor, 4096)
        if signal.SIGCHLD in numbers:
            self._reap()
        if self._saves and signal.SIGTERM in numbers:
            self._is_ending, self._look_at = True, 0.0
        if signal.SIGUSR2 in numbers:
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        if not self._asked_to_stop and self._is_running():
            self._asked_to_stop = True
            os.kill(self._rank.pid, STOP_SIGNAL)

    def _look(self) -> None:
        """Look what has become of the job: a rank that can come to no good end is killed."""
        if not self._is_running() or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + (1.0 if self._is_ending else LOOK_SECONDS)
        if is_superseded(self._run_dir, own_job_id()) or (self._is_ending and has_failed(self._run_dir)):
            self._is_killed = True
            os.kill(self._rank.pid, signal.SIGKILL)
        elif self._is_ending:
            self._ask_to_stop()

    def _is_running(self) -> bool:
        return bool(self._rank.pid) and self._rank.exit_code is None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._rank.pid:
                self._rank.exit_code = os.waitstatus_to_exitcode(status)

    def _end(self, code: int) -> int:
        """Leave word of how the rank has ended, and return the exit code of the task."""
        # A rank that was asked to stop before it could listen has nothing to save.
        stopped = code == EXIT_STOPPED or (self._asked_to_stop and code == -signal.SIGUSR2)
        code = -signal.SIGTERM if self._is_killed else code
        note_end(self._run_dir, self._number, EXIT_STOPPED if stopped else code)
        if code == EXIT_STOPPED:
            return 0  # any other code would have srun kill ranks that are still on their way
        return code if code >= 0 else 128 - code
