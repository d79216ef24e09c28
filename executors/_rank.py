"""One process of a job, and where its output goes. Standard library only, beside what is secret."""

import os
import signal
import subprocess
import time
from typing import Protocol

from executors._logs import LineAssembler, LogWriter
from executors._process import die_with_parent
from neva_recipes.secrets import mask

__all__ = ["EXIT_STOPPED", "STOP_SIGNAL", "Joined", "Rank"]

STOP_SIGNAL = signal.SIGUSR2
"""Asks a rank to save after its step and to end with EXIT_STOPPED."""

EXIT_STOPPED = os.EX_TEMPFAIL
"""75: the rank was stopped on request, and the run can be resumed."""


class Joined(Protocol):
    """What takes whole lines of every rank."""

    def write(self, data: bytes) -> None:
        """Take lines with their ends."""


class Rank:
    """One process of the job and its output."""

    def __init__(self, number: int, log: LogWriter, prefix: bytes, secrets: list[str]) -> None:
        self.number = number
        self.pid = 0
        self.output = -1
        self.exit_code: int | None = None
        self._assembler = LineAssembler()
        self._log = log
        self._prefix = prefix
        self._secrets = secrets

    def spawn(
        self, command: list[str], environment: dict[str, str], *, held: frozenset[signal.Signals] = frozenset()
    ) -> None:
        """Start the process.

        Args:
            command: Program and arguments.
            environment: All of its environment variables.
            held: Signals that it and all that it starts are to be spared, beside the one that asks it to stop.

        Raises:
            OSError: The program cannot be run.
        """
        parent = os.getpid()
        self.output, write_end = os.pipe()
        os.set_blocking(self.output, False)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: _prepare(parent, held),
            )
        finally:
            os.close(write_end)
        self.pid = process.pid
        # The supervisor reaps all its children itself, adopted ones too.
        process.returncode = 0

    def read(self, joined: Joined) -> bool:
        """Copy the output that is there to the logs; return whether more may come."""
        while True:
            try:
                data = os.read(self.output, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._write(self._assembler.feed(data, time.monotonic()), joined)

    def finish_log(self, joined: Joined) -> None:
        """Write an unfinished last line and close the log."""
        self._write(self._assembler.finish(), joined)
        self._log.close()

    def _write(self, lines: list[bytes], joined: Joined) -> None:
        lines = [_without_secrets(line, self._secrets) for line in lines]
        if lines:
            self._log.write(b"".join(line + b"\n" for line in lines))
            joined.write(b"".join(self._prefix + line + b"\n" for line in lines))


def _prepare(parent: int, held: frozenset[signal.Signals]) -> None:
    """Set up the process before its program is loaded, which could be killed by a request to stop that comes early."""
    die_with_parent(signal.SIGKILL, parent)
    signal.pthread_sigmask(signal.SIG_BLOCK, {STOP_SIGNAL, *held})


def _without_secrets(line: bytes, secrets: list[str]) -> bytes:
    return mask(line.decode(errors="surrogateescape"), secrets).encode(errors="surrogateescape")
