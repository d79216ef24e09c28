"""The process that runs a job on this machine: `python -m executors._supervisor RUN_DIR [--attached]`.

Started by the local executor, which hands over its lock on the run directory, a pipe on stdout that takes the word
"ok" (or what went wrong) once the ranks run, and with --attached a pipe on stdin that ends when the command in the
foreground is gone. With --launcher MODULE it starts no ranks but one process, `python -m MODULE RUN_DIR`, that has
others start them and ends with the exit code of the run. The program forks twice: into a guard, and below it the
supervisor proper, the parent of the ranks. Whichever of the two is killed, the other one ends every process of the
run. Nothing but the standard library is loaded.
"""

import contextlib
import dataclasses
import os
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import Any

from executors._failure import CAUSES, read_failure
from executors._logs import LogWriter
from executors._process import (
    become_subreaper,
    describe_exit,
    die_with_parent,
    identify,
    kill_children,
    memory_kills,
    pick_port,
)
from executors._rank import EXIT_STOPPED, STOP_SIGNAL, Joined, Rank
from executors._state import now, read_json, read_state, write_state
from neva_recipes.secrets import secret_values

__all__ = ["supervise_as_init"]

_CANCELLED_EXIT_CODE = 130
_CANCEL_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_KILL_SIGNAL = signal.SIGQUIT
_SIGNALS = (*_CANCEL_SIGNALS, _KILL_SIGNAL, signal.SIGHUP)


class _Nowhere:
    """Takes lines that are kept elsewhere."""

    def write(self, data: bytes) -> None:
        return


class _Supervisor:
    """Starts the ranks of one run, copies their output, and ends them all together."""

    def __init__(
        self,
        run_dir: Path,
        *,
        attached: bool,
        guard: int,
        entry: dict[str, Any] | None = None,
        interpreter: str = sys.executable,
        launcher: str | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._launcher = launcher
        self._attached = attached
        self._guard = guard
        self._entry = identify(os.getpid()) if entry is None else entry
        self._job: dict[str, Any] = read_json(run_dir / "job.json")
        program, *arguments = self._job["argv"]
        self._argv = [sys.executable if program == interpreter else program, *arguments]
        self._state = read_state(run_dir)
        if self._state.state != "created":
            raise ValueError(f"{run_dir}: expected a run in state created, got {self._state.state}")
        self._joined: Joined = LogWriter(run_dir / "logs" / "joined.log")
        self._ranks: list[Rank] = []
        self._selector = selectors.DefaultSelector()
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
        self._listen()
        # Written before the first rank exists: from here on a cancel reaches this process.
        self._state = dataclasses.replace(self._state, state="running", started=now(), supervisor=self._entry)
        write_state(self._run_dir, self._state)
        try:
            self._spawn_ranks()
        except OSError as error:
            self._failure = (1, f"rank {len(self._ranks)} could not be started: {error}")
            self._kill_ranks()
        _report("ok")
        while any(rank.exit_code is None for rank in self._ranks):
            self._step()
        kill_children()
        for rank in self._ranks:
            rank.read(self._joined)
            rank.finish_log(self._joined)
        state, code, reason = self._outcome()
        write_state(
            self._run_dir, dataclasses.replace(self._state, state=state, exit_code=code, reason=reason, ended=now())
        )
        return code

    def _listen(self) -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # SIGHUP is listened to, and then left aside, so that ranks start with its default again.
        for number in (signal.SIGCHLD, STOP_SIGNAL, *_SIGNALS):
            signal.signal(number, lambda *_: None)
        die_with_parent(signal.SIGTERM, self._guard)
        self._selector.register(read_end, selectors.EVENT_READ, self._take_signals)
        if self._attached:
            self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._take_end_of_command)

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
            self._joined = _Nowhere()  # what the ranks print gets there by another way
            process = Rank(0, LogWriter(self._run_dir / "logs" / "launcher.log"), b"", secrets)
            self._spawn(process, [sys.executable, "-P", "-m", self._launcher, str(self._run_dir)], dict(os.environ))
            return
        for number in range(size):
            prefix = f"[{number}] ".encode() if size > 1 else b""
            rank = Rank(number, LogWriter(self._run_dir / "logs" / f"rank-{number}.log"), prefix, secrets)
            self._spawn(rank, command, {**os.environ, **common, "RANK": str(number), "LOCAL_RANK": str(number)})

    def _spawn(self, rank: Rank, command: list[str], environment: dict[str, str]) -> None:
        rank.spawn(command, environment)
        self._ranks.append(rank)
        self._selector.register(rank.output, selectors.EVENT_READ, rank)

    def _step(self) -> None:
        timeout = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if not isinstance(key.data, Rank):
                key.data(key.fd)
            elif not key.data.read(self._joined):
                self._selector.unregister(key.fd)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._kill_ranks()

    def _take_signals(self, descriptor: int) -> None:
        numbers = os.read(descriptor, 4096)
        if signal.SIGCHLD in numbers:
            self._reap()
        if os.getppid() != self._guard:
            self._fail(1, "the guard process of the run was killed")
        elif any(number in numbers for number in (*_CANCEL_SIGNALS, _KILL_SIGNAL)):
            self._cancel("a cancel was asked for")
        if _KILL_SIGNAL in numbers:
            self._kill_ranks()
        if STOP_SIGNAL in numbers:
            self._signal_ranks(STOP_SIGNAL)

    def _take_end_of_command(self, descriptor: int) -> None:
        if not os.read(descriptor, 4096):
            self._selector.unregister(descriptor)
            self._cancel("the command that started it is gone")

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                for rank in self._ranks:
                    if rank.pid == pid and rank.exit_code is None:
                        rank.exit_code = os.waitstatus_to_exitcode(status)
                        self._judge(rank.number, rank.exit_code)

    def _judge(self, number: int, code: int) -> None:
        who = f"rank {number}" if self._launcher is None else "what starts the ranks (logs/launcher.log)"
        ended = describe_exit(code, out_of_memory=memory_kills() > self._memory_kills)
        failure = (code if code > 0 else 128 - code, f"{who} {ended}")
        causes = CAUSES[:1] if self._stopping else CAUSES  # a rank may trip over its own end
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
        """Ask the ranks to end. Not their children: a rank that saves its work still needs its data loaders."""
        self._stopping = True
        self._deadline = time.monotonic() + self._job["executor"]["grace_seconds"]
        self._signal_ranks(signal.SIGTERM)

    def _signal_ranks(self, number: int) -> None:
        for rank in self._ranks:
            if rank.exit_code is None:
                os.kill(rank.pid, number)

    def _kill_ranks(self) -> None:
        self._stopping, self._killing, self._deadline = True, True, None
        for rank in self._ranks:
            if rank.exit_code is None:
                os.killpg(rank.pid, signal.SIGKILL)

    def _outcome(self) -> tuple[str, int, str | None]:
        if self._cancel_reason is not None:
            return "cancelled", _CANCELLED_EXIT_CODE, self._cancel_reason
        if self._failure is None and any(rank.exit_code == EXIT_STOPPED for rank in self._ranks):
            return "cancelled", EXIT_STOPPED, "stopped on request"
        if self._failure is None:
            return "succeeded", 0, None
        exit_code, reason = self._failure
        report = read_failure(self._run_dir) if self._failed_rank is not None else None
        # Of a rank that was killed, the others can only report that they have lost it.
        if report is not None and self._killed_rank in (None, report[0]):
            number, kind, message = report
            whole = kind in ("user", "stages")  # the message needs no rank to be understood
            code = 2 if kind == "user" else exit_code
            return "failed", code, message if whole else f"rank {number}: {message}"
        return "failed", exit_code, reason


def supervise_as_init(run_dir: Path, entry: dict[str, Any], *, interpreter: str) -> int:
    """Run a job as the first process of a container, and return its exit code.

    Every orphan there is a child of the first process, and the kernel kills all of them with it: no guard is needed.

    Args:
        run_dir: The run directory, in state `created`.
        entry: What the run is known by from outside: the entry `supervisor` of its state.json.
        interpreter: The Python outside; where the job names it, the ranks get this process's own.
    """
    return _Supervisor(run_dir, attached=False, guard=os.getppid(), entry=entry, interpreter=interpreter).run()


def _report(word: str) -> None:
    """Tell the waiting executor, and let go of its pipe."""
    with contextlib.suppress(OSError):
        os.write(1, word.encode() + b"\n")
    _detach(1)


def _detach(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _guard(supervisor: int) -> None:
    """Outlive the supervisor, and end what it left if it was killed."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _detach(0, 1)
    os.waitpid(supervisor, 0)
    kill_children()


def main(arguments: list[str]) -> None:
    """Fork into guard and supervisor, and return in each at its end; the caller's own process exits at once."""
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
