"""Finding runs: by name, by path, and all of a folder."""

import contextlib
import difflib
import os
from datetime import datetime
from pathlib import Path

from executors.job import read_job_record
from executors.runs import Run
from neva_recipes.config import RunError, path_is

__all__ = ["find_run", "list_runs"]


def find_run(name_or_path: str | Path, runs_dir: str | Path = "runs") -> Run:
    """Return a run by the name of its directory, the name it was given (the newest of that name), or its path.

    PIPELINE/STAGE is the run of a stage.

    Raises:
        RunError: There is none; the nearest names are offered.
    """
    wanted = str(name_or_path)
    directories = _directories(runs_dir)
    if wanted in directories:
        return Run(directories[wanted])
    runs = list_runs(runs_dir)
    for run in reversed(runs):
        if _given_name(run) == wanted:
            return run
    path = Path(os.path.realpath(wanted))
    if wanted and _is_run(path):
        return Run(path)
    whole, _, stage = wanted.rpartition("/")
    if whole and stage:
        stage_path = find_run(whole, runs_dir).path / "stages" / stage
        if _is_run(stage_path):
            return Run(stage_path)
        names_of_stages = sorted(found.parent.name for found in stage_path.parent.glob("*/job.json"))
        expected = f"expected one of {', '.join(names_of_stages)}" if names_of_stages else "it is no pipeline"
        raise RunError(f"run {whole} has no stage {stage!r}: {expected}")
    names = dict.fromkeys([name for run in runs for name in (_given_name(run), run.name)])
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f" (did you mean {', '.join(near)}?)" if near else ""
    raise RunError(f"no run {wanted!r} in {runs_dir}{hint}")


def list_runs(runs_dir: str | Path = "runs") -> list[Run]:
    """Return the runs of a folder, oldest first; none if the folder does not exist.

    Those in directories that are not for the user's eyes are left out.

    Raises:
        RunError: The folder cannot be read.
    """
    found = {path: Run(path) for path in _directories(runs_dir).values()}
    return sorted(found.values(), key=lambda run: (_created(run), run.name))


def _directories(runs_dir: str | Path) -> dict[str, Path]:
    """Return the run directories of a folder, by the names of its entries.

    Of entries that lead to one and the same, such as a link to the newest run, all have the path of one: the directory
    itself if that is among them.

    Raises:
        RunError: The folder cannot be read.
    """
    folder = Path(os.path.realpath(runs_dir))
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".") and _is_run(path)]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"{runs_dir}: cannot be read: {error.strerror}") from None
    places: dict[str, Path] = {}
    paths.sort(key=lambda path: (path.is_symlink(), path.name))
    return {path.name: places.setdefault(os.path.realpath(path), path) for path in paths}


def _is_run(path: Path) -> bool:
    return path_is(path / "job.json", Path.is_file)


def _given_name(run: Run) -> str:
    try:
        name: str = read_job_record(run.path)["name"]
    except RunError:
        return ""
    return name


def _created(run: Run) -> float:
    """Return when a run was planned, in seconds since 1970; of one that cannot be read, when its file was written."""
    try:
        return datetime.fromisoformat(read_job_record(run.path)["created"]).timestamp()
    except (RunError, ValueError):
        with contextlib.suppress(OSError):
            return (run.path / "job.json").stat().st_mtime
        return 0.0
