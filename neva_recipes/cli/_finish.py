"""What a command says at its end of the run that it has started."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executors import Run

__all__ = ["finish"]


def finish(run: "Run", detached: bool) -> int:
    """Say how a run that was started stands, and return the exit code of the command."""
    reference = shlex.quote(run.name if run.path.parent == Path("runs").resolve() else str(run.path))
    if detached:
        print(f"{run.name} runs in {run.path}; nemo-run logs -f {reference} follows it")
        return 0
    code, status = run.wait(), run.status()
    if code == 0:
        print(f"{run.name} {status.state}: {run.path}", file=sys.stderr)
    elif status.state == "cancelled":
        print(f"{run.name} cancelled: {status.reason}; nemo-run resume {reference} goes on with it", file=sys.stderr)
    else:
        print(f"error: run {run.name} {status.state}: {status.reason}", file=sys.stderr)
    return code
