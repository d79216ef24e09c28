"""failure.json: the failure that a rank has reported. Standard library only."""

from pathlib import Path

from neva_recipes.run_directory.layout import FAILURE_FILE
from neva_recipes.run_directory.state import read_json

__all__ = ["read_failure"]

_LONGEST_MESSAGE = 1000


def read_failure(run_dir: Path) -> tuple[int, str, str] | None:
    """Return rank, kind and message of failure.json; `None` if it is missing or damaged."""
    try:
        failure = read_json(run_dir / FAILURE_FILE)
        number, kind, message = int(failure["rank"]), failure["kind"], " ".join(failure["message"].split())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return number, kind, message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + "..."
