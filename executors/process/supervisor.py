"""The process that runs a job on this machine: `python -m executors.process.supervisor RUN_DIR [--attached]`.

The local executor starts it and hands over its lock on the run directory and a pipe on stdout, which takes "ok" or an
error message once the ranks run. With --attached, stdin is a pipe that ends when the command in the foreground has
ended. With --launcher MODULE it starts one process instead of the ranks: `python -m MODULE RUN_DIR`, which has another
program start the ranks and ends with the exit code of the run. The program forks twice: into a guard, and below it the
supervisor, the parent of the ranks. If one of the two is killed, the other ends every process of the run. Only the
standard library is loaded.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from executors.process.linux import (
    become_subreaper,
    describe_exit,
    die_with_parent,
    kill_children,
    memory_kills,
    pick_port,
)
from executors.process.logs import LogWriter
from executors.process.loop import RankLoop
from executors.process.rank import Rank
from executors.process.surroundings import rank_environment
from executors.process.verdict import reported_failure
from neva_recipes.run_directory.exit_codes import (
    CAUSES,
    EXIT_CANCELLED,
    EXIT_STOPPED,
    STOP_SIGNAL,
    STOPPED,
    exit_code_of,
)
from neva_recipes.run_directory.layout import JOB_FILE, joined_log, launcher_log, rank_log
from neva_recipes.run_directory.processes import identify
from neva_recipes.run_directory.state import now, read_json, read_state, write_state
from neva_recipes.secrets import secret_values

__all__ = ["supervise_as_init"]

_CANCEL_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_KILL_SIGNAL = signal.SIGQUIT
_SIGNALS = (*_CANCEL_SIGNALS, _KILL_SIGNAL, signal.SIGHUP)


class _Nowhere:
    """Discards lines that are logged elsewhere."""

    def write(self, data: bytes) -> None:
        return


class _Supervisor:
    """Starts the ranks of one run, copies their output, and ends all of them together."""

    def __init__(
        self,
        run_dir: Path,
        *,
        attached: bool,
        guard: int,
        entry: dict[str, object] | None = None,
        interpreter: str = sys.executable,
        launcher: str | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._launcher = launcher
        self._attached = attached
        self._guard = guard
        self._entry = identify(os.getpid()) if entry is None else entry
        self._job: dict[str, Any] = read_json(run_dir / JOB_FILE)
        program, *arguments = self._job["argv"]
        self._argv = [sys.executable if program == interpreter else program, *arguments]
        self._state = read_state(run_dir)
        if self._state.state != "created":
            raise ValueError(f"{run_dir}: expected a run in state created, got {self._state.state}")
        self._joined = LogWriter(joined_log(run_dir))
        self._deadline: float | None = None
        self._stopping = False
        self._cancel_reason: str | None = None
        self._failure: tuple[int, str] | None = None
        self._failed_rank: int | None = None
        self._killed_rank: int | None = None
        self._killing = False
        self._memory_kills = memory_kills()

    def run(self) -> int:
        """Run the job to its end, and return its exit code."""
        self._loop = self._listen()
        # Written before the first rank is started: from here on a cancel reaches this process.
        self._state = dataclasses.replace(self._state, state="running", started=now(), supervisor=self._entry)
        write_state(self._run_dir, self._state)
        try:
            self._spawn_ranks()
        except OSError as error:
            self._failure = (1, f"rank {len(self._loop.ranks)} could not be started: {error}")
            self._kill_ranks()
        _report("ok")
        while self._loop.goes_on:
            self._step()
        self._loop.finish()
        state, code, reason = self._outcome()
        write_state(
            self._run_dir, dataclasses.replace(self._state, state=state, exit_code=code, reason=reason, ended=now())
        )
        return code

    def _listen(self) -> RankLoop:
        # SIGHUP gets a handler that ignores it; SIG_IGN would be inherited by the ranks.
        loop = RankLoop(self._joined, (STOP_SIGNAL, *_SIGNALS), self._take_signals, self._judge)
        die_with_parent(signal.SIGTERM, self._guard)
        if self._attached:
            loop.watch(sys.stdin.fileno(), self._take_end_of_command)
        return loop

    def _spawn_ranks(self) -> None:
        size = self._job["processes_per_node"]
        command = [*self._argv, str(self._run_dir)]
        common = {
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "NODE_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(pick_port()),
        }
        if self._state.attempt > 1:
            self._joined.write(f"--- attempt {self._state.attempt}, {now():.19} UTC ---\n".encode())
        secrets = secret_values(os.environ)
        if self._launcher is not None:
            self._loop.joined = _Nowhere()  # the output of the ranks reaches the joined log by another way
            process = Rank(0, LogWriter(launcher_log(self._run_dir)), b"", secrets)
            self._spawn(process, [sys.executable, "-P", "-m", self._launcher, str(self._run_dir)], {})
            return
        for number in range(size):
            prefix = f"[{number}] ".encode() if size > 1 else b""
            rank = Rank(number, LogWriter(rank_log(self._run_dir, number)), prefix, secrets)
            self._spawn(rank, command, common | {"RANK": str(number), "LOCAL_RANK": str(number)})

    def _spawn(self, rank: Rank, command: list[str], own: dict[str, str]) -> None:
        rank.spawn(command, rank_environment(os.environ, own, chosen=self._job["env"]))
        self._loop.add(rank)

    def _step(self) -> None:
        timeout = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        self._loop.step(timeout)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._kill_ranks()

    def _take_signals(self, numbers: bytes) -> None:
        if os.getppid() != self._guard:
            self._fail(1, "the guard process of the run was killed")
        elif any(number in numbers for number in (*_CANCEL_SIGNALS, _KILL_SIGNAL)):
            self._cancel("on request")
        if _KILL_SIGNAL in numbers:
            self._kill_ranks()
        if STOP_SIGNAL in numbers:
            self._signal_ranks(STOP_SIGNAL)

    def _take_end_of_command(self, descriptor: int) -> None:
        if not os.read(descriptor, 4096):
            self._loop.unwatch(descriptor)
            self._cancel("the command that started it is gone")

    def _judge(self, rank: Rank) -> None:
        number, code = rank.number, rank.exit_code
        assert code is not None  # the rank has ended
        who = f"rank {number}" if self._launcher is None else f"what starts the ranks ({launcher_log(Path())})"
        ended = describe_exit(code, out_of_memory=memory_kills() > self._memory_kills)
        failure = (exit_code_of(code), f"{who} {ended}")
        causes = CAUSES[:1] if self._stopping else CAUSES  # a rank that was asked to end may crash
        if -code in causes and not self._killing and self._killed_rank is None:
            self._killed_rank = number
            if self._failed_rank is not None:
                self._failure = failure
        if code not in (0, EXIT_STOPPED) and not self._stopping:
            self._failed_rank = number
            self._fail(*failure)

    def _cancel(self, reason: str) -> None:
        if not self._stopping:
            self._cancel_reason = reason
            self._stop()

    def _fail(self, exit_code: int, reason: str) -> None:
        if not self._stopping:
            self._failure = (exit_code, reason)
            self._stop()

    def _stop(self) -> None:
        """Ask the ranks to end, but not their children: a rank that saves its work still needs its data loaders."""
        self._stopping = True
        self._deadline = time.monotonic() + self._job["executor"]["grace_seconds"]
        self._signal_ranks(signal.SIGTERM)

    def _signal_ranks(self, number: int) -> None:
        for rank in self._loop.ranks:
            rank.send(number)

    def _kill_ranks(self) -> None:
        self._stopping, self._killing, self._deadline = True, True, None
        for rank in self._loop.ranks:
            if rank.exit_code is None:
                os.killpg(rank.pid, signal.SIGKILL)

    def _outcome(self) -> tuple[str, int, str | None]:
        if self._cancel_reason is not None:
            return "cancelled", EXIT_CANCELLED, self._cancel_reason
        if self._failure is None and any(rank.exit_code == EXIT_STOPPED for rank in self._loop.ranks):
            return "cancelled", EXIT_STOPPED, STOPPED
        if self._failure is None:
            return "succeeded", 0, None
        exit_code, reason = self._failure
        report = reported_failure(self._run_dir, self._killed_rank) if self._failed_rank is not None else None
        if report is not None:
            return "failed", report.exit_code or exit_code, report.line
        return "failed", exit_code, reason


def supervise_as_init(run_dir: Path, entry: dict[str, object], *, interpreter: str) -> int:
    """Run a job as the first process of a container, and return its exit code.

    Needs no guard: orphans become children of the first process, and the kernel kills them together with it.

    Args:
        run_dir: The run directory, in state `created`.
        entry: The entry `supervisor` of its state.json, which identifies the container.
        interpreter: The Python outside of the container, which this process's Python replaces in the job's command.
    """
    return _Supervisor(run_dir, attached=False, guard=os.getppid(), entry=entry, interpreter=interpreter).run()


def _report(word: str) -> None:
    """Send a message to the waiting executor, and close its pipe."""
    with contextlib.suppress(OSError):
        os.write(1, word.encode() + b"\n")
    _detach(1)


def _detach(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _guard(supervisor: int) -> None:
    """Wait for the end of the supervisor, and kill the processes that it has left if it was killed."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _detach(0, 1)
    os.waitpid(supervisor, 0)
    kill_children()


def main(arguments: list[str]) -> None:
    """Fork into guard and supervisor, and return in each at its end; the original process exits at once."""
    run_dir, attached = Path(arguments[0]), "--attached" in arguments[1:]
    launcher = arguments[arguments.index("--launcher") + 1] if "--launcher" in arguments else None
    if os.fork():
        os._exit(0)
    become_subreaper()
    guard = os.getpid()
    supervisor = os.fork()
    if supervisor:
        _guard(supervisor)
        return
    os.setsid()
    become_subreaper()
    try:
        _Supervisor(run_dir, attached=attached, guard=guard, launcher=launcher).run()
    except OSError as error:
        _report(f"error: {error}")
        raise


if __name__ == "__main__":
    main(sys.argv[1:])
