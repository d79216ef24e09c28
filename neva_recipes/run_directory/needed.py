"""Checkpoints that runs with adapters need: the weights beside adapters are in no other place."""

import contextlib
from pathlib import Path

__all__ = ["is_needed", "mark_needed"]


def _mark(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.needed-by")


def mark_needed(checkpoint: Path, run: Path) -> None:
    """Write beside a checkpoint that a run needs it; where nothing can be written, nothing is.

    Args:
        checkpoint: The checkpoint.
        run: The directory of the run that needs it.
    """
    lines = [*_runs(checkpoint), run.absolute()]
    with contextlib.suppress(OSError):  # a folder that is only to be read loses no checkpoints either
        _mark(checkpoint).write_text("".join(f"{path}\n" for path in dict.fromkeys(lines)), encoding="utf-8")


def is_needed(checkpoint: Path) -> bool:
    """Return whether a run that is still there needs a checkpoint."""
    return any(run.is_dir() for run in _runs(checkpoint))


def _runs(checkpoint: Path) -> list[Path]:
    try:
        return [Path(line) for line in _mark(checkpoint).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return []
