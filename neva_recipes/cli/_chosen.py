"""Chooses one of several runs for a command, and says which."""

from pathlib import Path
from typing import TYPE_CHECKING

from neva_recipes.terminal import tell

if TYPE_CHECKING:
    from executors import Run

__all__ = ["choose_run"]


def choose_run(word: str, runs_dir: str | Path) -> "Run":
    """Return the run that a word names; if a pattern matches several, the last one, with a note.

    Raises:
        RunError: There is none; the message offers the nearest names.
    """
    from executors import find_runs
    from neva_recipes.run_directory.stages import run_title

    *others, run = find_runs(word, runs_dir)
    if others:
        tell("note", f"{word} stands for {len(others) + 1} runs: {run_title(run.path)}, the last of them, is taken")
    return run
