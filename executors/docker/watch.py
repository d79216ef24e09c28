"""Watches a container from the machine that started it: `python -m executors.docker.watch FD [--attached]`.

The Docker executor starts it and hands over its lock on the run directory, a pipe FD with an `Order` as JSON, and a
pipe on stdout, which takes "ok" or an error message once the run has started. With --attached, stdin is a pipe that
ends when the command in the foreground has ended. Creates and starts the container, waits for its end, writes the final
state if the container has not, and removes the container. If this process is killed the run goes on, and its state is
taken from the engine.
"""

import contextlib
import dataclasses
import json
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

from executors.docker.engine import connect, engine_errors, inspect_container, outcome_of, refusals, signal_container
from neva_recipes.config import RunError
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.state import FINAL, State, now, read_state, write_state
from neva_recipes.secrets import mask

__all__ = ["Order", "hand_over"]

_POLL_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_LAST_WORDS = 2000


@dataclasses.dataclass(frozen=True)
class Order:
    """The container to start.

    Attributes:
        run_dir: The run directory.
        address: Address of the engine.
        name: Name of the container.
        config: The container, as the engine's API takes it.
        standard_input: Text for its standard input.
        owner: User id and group id of the owner of the files; `None` for those of this process.
    """

    run_dir: str
    address: str
    name: str
    config: dict[str, Any]
    standard_input: str
    owner: tuple[int, int] | None


def hand_over(run_dir: Path, owner: tuple[int, int] | None) -> None:
    """Change the owner of the run directory and its content to the user of the container; only root can do this."""
    if owner is None:
        return
    os.chown(run_dir, *owner)
    for folder, folders, files in os.walk(run_dir):
        for name in (*folders, *files):
            os.chown(Path(folder) / name, *owner, follow_symlinks=False)


class _Watch:
    """Watches one container."""

    def __init__(self, order: Order, *, attached: bool) -> None:
        self._order = order
        self._run_dir = Path(order.run_dir)
        self._lifeline = attached
        self._client = connect(order.address)
        self._process: dict[str, Any] | None = None

    def run(self) -> None:
        """Start the container, and return when it has ended and is removed."""
        with refusals(self._order.address, self._order.config["Image"]):
            self._start()
        ended = threading.Event()
        read_end, write_end = os.pipe()
        threading.Thread(target=self._wait_for_end, args=(ended, write_end), daemon=True).start()
        while not ended.is_set() and read_state(self._run_dir).state == "created":
            ended.wait(_POLL_SECONDS)
        if read_state(self._run_dir).state == "created":
            problem = self._last_words()
            self._remove()
            raise RunError(problem)
        _report("ok")
        watched = [read_end, *([0] if self._lifeline else [])]
        while not ended.is_set():
            readable, _, _ = select.select(watched, [], [])
            if 0 in readable and not os.read(0, 4096):
                watched.remove(0)
                self._stop()
        try:
            self._record()
        finally:
            self._remove()

    def _start(self) -> None:
        self._remove_old()
        container = self._client.api.create_container_from_config(self._order.config, name=self._order.name)["Id"]
        try:
            attached = None
            if self._order.standard_input:
                attached = self._client.api.attach_socket(container, params={"stdin": 1, "stream": 1})
            self._client.api.start(container)
            if attached is not None:
                # Depending on the address, the SDK returns a raw socket or a file that wraps it.
                socket = getattr(attached, "_sock", attached)
                socket.sendall(self._order.standard_input.encode("utf-8", "surrogateescape"))
        except BaseException:
            with contextlib.suppress(*engine_errors()):
                self._remove()
            raise
        found = inspect_container(self._client, self._order.name)
        if found is not None and self._order.address.startswith("unix://"):
            with contextlib.suppress(ProcessLookupError):
                self._process = processes.identify(found["State"]["Pid"])

    def _remove_old(self) -> None:
        """Remove the container of an earlier attempt if it has ended; its watch was killed."""
        found = inspect_container(self._client, self._order.name)
        if found is not None and not found["State"]["Running"]:
            self._remove()

    def _wait_for_end(self, ended: threading.Event, wake: int) -> None:
        """Wait, in a thread, for the end of the container; keeps asking while the engine is down."""
        while True:
            try:
                found = inspect_container(self._client, self._order.name)
                if found is None or not found["State"]["Running"]:
                    break
                self._client.api.wait(self._order.name, timeout=None)
            except engine_errors():
                if self._process is not None and not processes.is_alive(self._process):
                    break
                time.sleep(_RETRY_SECONDS)
        ended.set()
        os.write(wake, b"\0")

    def _stop(self) -> None:
        with contextlib.suppress(*engine_errors()):
            signal_container(self._client, self._order.name, "SIGTERM")

    def _record(self) -> None:
        """Write the final state if the container ended before its first process could write it."""
        state = read_state(self._run_dir)
        if state.state in FINAL:
            return
        told: State | None = None
        with contextlib.suppress(*engine_errors()):
            found = inspect_container(self._client, self._order.name)
            told = outcome_of(found) if found is not None else None
        told = told or State(state="failed", exit_code=1, reason="its container is gone")
        final = dataclasses.replace(
            state, state=told.state, exit_code=told.exit_code, reason=told.reason, ended=told.ended or now()
        )
        write_state(self._run_dir, final)
        hand_over(self._run_dir, self._order.owner)

    def _last_words(self) -> str:
        """Return why the first process ended before it started the run."""
        words = ""
        with contextlib.suppress(*engine_errors()):
            printed = self._client.api.logs(self._order.name, tail=20)[-_LAST_WORDS:].decode(errors="replace")
            lines = [line.strip() for line in printed.splitlines() if line.strip() and line.strip() != "ok"]
            words = mask(lines[-1]) if lines else ""
        return f"its container ended at once{': ' + words if words else ''}"

    def _remove(self) -> None:
        with contextlib.suppress(*engine_errors()):
            self._client.api.remove_container(self._order.name, force=True, v=True)


def _report(word: str) -> None:
    """Send a message to the waiting executor, and close its pipe."""
    with contextlib.suppress(OSError):
        os.write(1, word.encode() + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


def main(arguments: list[str]) -> None:
    """Carry out the order in a background process, which the caller does not wait for."""
    if os.fork():
        os._exit(0)
    os.setsid()
    with os.fdopen(int(arguments[0]), encoding="utf-8") as pipe:
        order = Order(**json.load(pipe))
    try:
        _Watch(order, attached="--attached" in arguments[1:]).run()
    except (RunError, OSError) as error:
        _report(f"error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main(sys.argv[1:])
