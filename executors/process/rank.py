"""One process of a job and its output. Standard library only, apart from `neva_recipes.secrets`."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Protocol

from executors.process.linux import die_with_parent
from executors.process.logs import LineAssembler, LogWriter
from neva_recipes.run_directory.exit_codes import STOP_SIGNAL
from neva_recipes.secrets import mask

__all__ = ["WORKER_MODULE", "Joined", "Rank", "trains"]

WORKER_MODULE = "neva_model.worker"
"""The program that trains a recipe; only this program handles a request to stop."""


def trains(argv: Sequence[str]) -> bool:
    """Return whether a command trains a recipe, by whatever interpreter, so that it can save and stop on request."""
    return WORKER_MODULE in argv


class Joined(Protocol):
    """Receives the complete lines of every rank."""

    def write(self, data: bytes) -> None:
        """Write lines that end with a newline."""


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
            held: Signals to block in the process and its children, in addition to the stop signal.

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
        # The supervisor reaps all of its children itself, adopted ones too.
        process.returncode = 0

    def send(self, number: int) -> None:
        """Send the process a signal if it has been started and has not ended."""
        if self.pid and self.exit_code is None:
            os.kill(self.pid, number)

    def read(self, joined: Joined) -> bool:
        """Copy the available output to the logs; return whether more may come."""
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
    """Set up the process before exec; blocks the stop signal, which would kill a program that has no handler yet."""
    die_with_parent(signal.SIGKILL, parent)
    signal.pthread_sigmask(signal.SIG_BLOCK, {STOP_SIGNAL, *held})


def _without_secrets(line: bytes, secrets: list[str]) -> bytes:
    return mask(line.decode(errors="surrogateescape"), secrets).encode(errors="surrogateescape")
