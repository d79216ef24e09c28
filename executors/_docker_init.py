"""The first process of a container: `python -P -m executors._docker_init START RUN_DIR`. Standard library only.

START is JSON: `supervisor`, what state.json is to know the run by, and `interpreter`, the Python of whoever started it,
in whose place the ranks get the one of the container. Secret variables come on standard input, as NAME=value with a NUL
after each, to its end or an empty one. The exit code is the run's.
"""

import json
import os
import sys
from pathlib import Path

from executors._lock import acquire_lock
from executors._process import become_subreaper
from executors._state import FINAL, State, read_state, write_state
from executors._supervisor import supervise_as_init

_IN_USE = 2


def main(arguments: list[str]) -> int:
    """Run the job of a run directory, and return its exit code."""
    start, run_dir = json.loads(arguments[0]), Path(arguments[1])
    entry = start["supervisor"]
    os.environb.update(_read_variables())
    become_subreaper()
    try:
        state = read_state(run_dir)
    except FileNotFoundError:
        state = None
    # There is one container of that name: the one that state.json tells of has ended.
    is_ended = state is None or state.state in FINAL or state.supervisor.get("container") == entry["container"]
    if is_ended:
        # Started by hand: nobody has brought the directory into the state `created`.
        if acquire_lock(run_dir) is None:
            print(f"error: run {run_dir.name} is in use", file=sys.stderr)
            return _IN_USE
        (run_dir / "failure.json").unlink(missing_ok=True)
        write_state(run_dir, State(state="created", attempt=1 if state is None else state.attempt + 1))
    elif state is not None and state.state != "created":
        print(f"error: run {run_dir.name} is in use: {state.state}", file=sys.stderr)
        return _IN_USE
    return supervise_as_init(run_dir, entry, interpreter=start["interpreter"])


def _read_variables() -> dict[bytes, bytes]:
    """Return the variables on standard input, and leave nothing there for others to read."""
    data = bytearray()
    while data[-2:] != b"\0\0" and (part := os.read(0, 65536)):
        data += part
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    entries = [entry.partition(b"=") for entry in data.split(b"\0") if entry]
    return {bytes(name): bytes(value) for name, _, value in entries}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
