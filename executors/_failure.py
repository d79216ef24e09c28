"""Why ranks failed, as they say themselves. Standard library only."""

import signal
from pathlib import Path

from executors._state import read_json

__all__ = ["CAUSES", "read_failure"]

CAUSES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)
"""What no rank sends itself because another one is gone, so it is a cause and not a consequence."""

_LONGEST_MESSAGE = 1000


def read_failure(run_dir: Path) -> tuple[int, str, str] | None:
    """Return rank, kind and message of the failure.json that a rank has written, if it is a whole one."""
    try:
        failure = read_json(run_dir / "failure.json")
        number, kind, message = int(failure["rank"]), failure["kind"], " ".join(failure["message"].split())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return number, kind, message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + "..."
