"""The width of lines in a job's log."""

from pathlib import Path

from neva_recipes.run_directory.stages import stage_name

__all__ = ["log_width"]

_TERMINAL, _LEAST = 80, 60


def log_width(run_directory: Path) -> int:
    """Return the columns of a line that fits a terminal of 80, also after `[STAGE] ` in the log of a pipeline.

    Args:
        run_directory: Directory of the run that prints it.
    """
    stage = stage_name(run_directory)
    return _TERMINAL if stage is None else max(_LEAST, _TERMINAL - len(f"[{stage}] "))
