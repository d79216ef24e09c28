"""Finds runs by name or path, and lists those of a folder."""

from pathlib import Path

from executors.runs.paths import find_run_directories, find_run_directory, list_run_directories
from executors.runs.run import Run

__all__ = ["find_run", "find_runs", "list_runs"]


def find_run(name_or_path: str | Path, runs_dir: str | Path = "runs") -> Run:
    """Return a run by the name of its directory, its path, or the name it was given (the newest run of that name).

    PIPELINE/STAGE is the run of a stage, `latest` the newest run, and a pattern such as `llava.pretrain-*` the newest
    run that matches it.

    Raises:
        RunError: There is no such run; the message suggests similar names.
    """
    return Run(find_run_directory(name_or_path, runs_dir))


def find_runs(name_or_path: str | Path, runs_dir: str | Path = "runs") -> list[Run]:
    """Return every run that a word stands for, oldest first: all matches of a pattern, one run for any other word.

    A run whose name or path is literally this word takes precedence over `latest` and patterns.

    Raises:
        RunError: There is no such run; the message suggests similar names.
    """
    return [Run(path) for path in find_run_directories(name_or_path, runs_dir)]


def list_runs(runs_dir: str | Path = "runs") -> list[Run]:
    """Return the runs of a folder, oldest first; an empty result if the folder does not exist.

    Leaves out runs in directories that the user may not read.

    Raises:
        RunError: The folder cannot be read.
    """
    return [Run(path) for path in list_run_directories(runs_dir)]
