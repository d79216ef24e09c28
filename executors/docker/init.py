"""The first process of a container: `python -P -m executors.docker.init START RUN_DIR`. Standard library only.

START is JSON: `supervisor` is the entry for state.json, and `interpreter` is the Python outside of the container, which
this Python replaces in the command of the ranks. Secret variables come on standard input as NAME=value with a NUL after
each, until an empty entry or the end of input. The exit code is that of the run.
"""

import json
import os
import sys
from pathlib import Path

from executors.process.linux import become_subreaper
from executors.process.supervisor import supervise_as_init
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.run_directory.layout import FAILURE_FILE
from neva_recipes.run_directory.lock import acquire_lock
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.state import FINAL, State, read_state, seconds_so_far, write_state


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
    # This process runs in the only container of this name, so an earlier one that state.json names has ended.
    is_ended = state is None or state.state in FINAL or state.supervisor.get("container") == entry["container"]
    if is_ended:
        # Started by hand: the directory is not yet in the state `created`.
        if acquire_lock(run_dir) is None:
            print(f"error: run {run_title(run_dir)} is in use", file=sys.stderr)
            return EXIT_MISTAKE
        (run_dir / FAILURE_FILE).unlink(missing_ok=True)
        attempt, seconds = (1, 0.0) if state is None else (state.attempt + 1, seconds_so_far(run_dir, state))
        write_state(run_dir, State(state="created", attempt=attempt, earlier_seconds=seconds))
    elif state is not None and state.state != "created":
        print(f"error: run {run_title(run_dir)} is in use: {state.state}", file=sys.stderr)
        return EXIT_MISTAKE
    return supervise_as_init(run_dir, entry, interpreter=start["interpreter"])


def _read_variables() -> dict[bytes, bytes]:
    """Return the variables from standard input, and replace it by /dev/null."""
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
