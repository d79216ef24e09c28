"""What a command says at its end of the run that it has started."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executors import Run

__all__ = ["finish", "reference"]


def reference(run: "Run", stage: str = "") -> str:
    """Return what names a run in the next command, ready for a shell: its name, or its path if it lies elsewhere.

    Args:
        run: The run.
        stage: Stage of it that is meant.
    """
    name = run.name if run.path.parent == Path("runs").resolve() else str(run.path)
    return shlex.quote(f"{name}/{stage}" if stage else name)


def finish(run: "Run", detached: bool) -> int:
    """Say how a run that was started stands, and return the exit code of the command."""
    if detached:
        from executors._state import read_state

        stands = "is queued:" if read_state(run.path).state == "queued" else "runs in"
        print(f"{run.name} {stands} {run.path}; nemo-run logs -f {reference(run)} follows it")
        return 0
    code, status = run.wait(), run.status()
    if code == 0:
        print(f"{run.name} {status.state}: {run.path}", file=sys.stderr)
    elif status.state == "cancelled":
        print(
            f"{run.name} cancelled: {status.reason}; nemo-run resume {reference(run)} goes on with it", file=sys.stderr
        )
    else:
        print(f"error: run {run.name} {status.state}: {status.reason}", file=sys.stderr)
    return code
