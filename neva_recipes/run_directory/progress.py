"""metrics/step.txt: the exact number of steps that a run has trained, between logs too. Standard library only."""

import os
from datetime import datetime
from pathlib import Path

from neva_recipes.run_directory.layout import CHECKPOINTS, METRICS
from neva_recipes.run_directory.names import list_checkpoints, listed_step

__all__ = ["has_trained_since", "read_trained_steps", "steps_file", "write_trained_steps"]

_BYTES = 20


def steps_file(run_dir: Path) -> Path:
    """Return the path of the file; the worker creates its folder."""
    return run_dir / METRICS / "step.txt"


def write_trained_steps(descriptor: int, step: int) -> None:
    """Overwrite the number with one system call and at a fixed length, so that a reader never sees a part of it.

    Raises:
        OSError: It cannot be written.
    """
    os.pwrite(descriptor, f"{step:<{_BYTES - 1}}\n".encode(), 0)


def has_trained_since(run_dir: Path, started: datetime) -> bool:
    """Return whether a run has written its number of steps since an attempt was started; true if this is unknown."""
    try:
        return steps_file(run_dir).stat().st_mtime >= started.timestamp()
    except OSError:
        return True


def read_trained_steps(run_dir: Path, last_logged: int | None) -> int | None:
    """Return how many steps a run has trained; `None` before the first.

    If the machine crashed, the newest number may be lost, but not the checkpoint. Runs of older versions have no
    such file.

    Args:
        run_dir: The run directory.
        last_logged: The last step in its metrics.
    """
    try:
        text = steps_file(run_dir).read_bytes()[:_BYTES].decode("ascii", "replace").strip()
    except OSError:
        text = ""
    trained = int(text) if text.isdecimal() else last_logged or 0
    newest = list_checkpoints(run_dir / CHECKPOINTS)[-1:]
    return max(trained, *map(listed_step, newest), 0) or None
