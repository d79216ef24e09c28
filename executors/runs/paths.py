"""Finds run directories by name or path, and lists those of a folder."""

import contextlib
import fnmatch
import os
import shlex
from datetime import datetime
from functools import cached_property
from pathlib import Path

from executors.job_record import read_job_record
from executors.runs.standing import has_begun
from neva_recipes.config import RunError, expand_path, local_path, near_words, path_is
from neva_recipes.run_directory.layout import CHECKPOINTS, JOB_FILE
from neva_recipes.run_directory.stages import stage_directories, stage_directory

__all__ = [
    "NEWEST",
    "find_run_directories",
    "find_run_directory",
    "is_pattern",
    "list_run_directories",
    "near_runs",
    "runs_above",
]

NEWEST = "latest"
"""The word for the newest run."""

_LEAST_RATIO = 0.5
"""Names of runs are long, with a time that nobody types."""


def find_run_directory(name_or_path: str | Path, runs_dir: str | Path = "runs") -> Path:
    """Return the directory of the run that `find_run` returns; raises as `find_run` does."""
    return find_run_directories(name_or_path, runs_dir)[-1]


def find_run_directories(name_or_path: str | Path, runs_dir: str | Path = "runs") -> list[Path]:
    """Return the directories of the runs that `find_runs` returns; raises as `find_runs` does."""
    return _Folder(runs_dir).find(str(name_or_path))


def is_pattern(word: str) -> bool:
    """Return whether a word can stand for several runs, as `llava.pretrain-*` does."""
    return any(character in word for character in "*?[")


def near_runs(wanted: str, runs_dir: str | Path) -> list[str]:
    """Return up to three names of runs that are similar to a wrong one, the most similar first."""
    return _Folder(runs_dir).near(wanted)


def runs_above(runs_dir: str | Path) -> str:
    """Return the end of a message about a folder without runs, if a folder above has one of this name with runs.

    People type commands in a subfolder of the one in which they have started their runs.
    """
    name = Path(runs_dir)
    if name.is_absolute() or ".." in name.parts:
        return ""
    above = Path.cwd().parents
    places = (Path(*[".."] * level, name) for level in range(1, len(above)))  # not the root of the file system
    found = next((place for place in places if _has_runs(place)), None)
    return "" if found is None else f"; there are some in {found}: --runs-dir {shlex.quote(str(found))}"


class _Folder:
    """A folder of runs, which is listed and read only once for several searches.

    Args:
        runs_dir: The folder, as shown in messages.
    """

    def __init__(self, runs_dir: str | Path) -> None:
        self._runs_dir = runs_dir

    @cached_property
    def directories(self) -> dict[str, Path]:
        """The run directories, by the names of their entries; see `_directories`."""
        return _directories(self._runs_dir)

    @cached_property
    def runs(self) -> dict[Path, str]:
        """The runs, oldest first, with the name that each was given; an empty name if it cannot be read."""
        found = []
        for path in dict.fromkeys(self.directories.values()):
            name, created = _name_and_moment(path)
            found.append((created, path.name, path, name))
        return {run: name for *_, run, name in sorted(found, key=lambda entry: entry[:2])}

    def find(self, wanted: str) -> list[Path]:
        """Return what `find_run_directories` returns."""
        if wanted in self.directories:
            return [self.directories[wanted]]
        if named := [run for run, name in self.runs.items() if name == wanted]:
            # A launch that has failed before it began does not take the name away from the run that had it.
            return [next((run for run in reversed(named) if has_begun(run)), named[-1])]
        path = Path(os.path.realpath(expand_path(wanted)))
        if wanted and _is_run(path):
            return [path]
        if not path_is(path) and (meant := self._meant(wanted)):
            return meant
        whole, _, last = wanted.rpartition("/")
        if whole and last and (owners := self._owners(whole, path.parent)) is not None:
            return _stages(owners, whole, last)
        if whole and last and (last == NEWEST or is_pattern(last)) and path_is(path.parent, Path.is_dir):
            return find_run_directories(last, path.parent)
        if is_pattern(wanted):
            other = self._other_folder or "; nemo-run status lists them"
            raise RunError(f"no run matches {wanted!r} in {self._runs_dir}{other}")
        near = _run_above(wanted) or self.near(wanted) or _near_paths(wanted)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise RunError(f"no run {wanted!r} in {self._runs_dir}{hint or self._other_folder}")

    @property
    def _other_folder(self) -> str:
        """The end of a message that names another folder with runs, if this one has none."""
        return "" if self.directories else runs_above(self._runs_dir)

    def near(self, wanted: str) -> list[str]:
        """Return what `near_runs` returns."""
        stages = [f"{name}/{stage.name}" for run, name in self.runs.items() for stage in stage_directories(run)]
        names = dict.fromkeys([*(each for run, name in self.runs.items() for each in (name, run.name)), *stages])
        return near_words(wanted, names, least_ratio=_LEAST_RATIO)

    def _meant(self, wanted: str) -> list[Path]:
        """Return the runs that `latest` or a pattern stands for; empty for any other word."""
        if wanted == NEWEST:
            return [*self.runs][-1:]
        if not is_pattern(wanted):
            return []
        return [
            run
            for run, name in self.runs.items()
            if any(fnmatch.fnmatchcase(each, wanted) for each in (run.name, name))
        ]

    def _owners(self, name: str, folder: Path) -> list[Path] | None:
        """Return the runs whose stage may be meant; `None` if the name is that of another folder.

        Raises:
            RunError: There is neither a run nor a folder of this name.
        """
        try:
            return self.find(name)
        except RunError:
            if path_is(folder, Path.is_dir):
                return None
            raise


def _run_above(wanted: str) -> list[str]:
    """Return the run that has a checkpoint of this path, as a path; empty if there is none."""
    path = Path(wanted)
    runs = [path.parent.parent] if path.parent.name == CHECKPOINTS else []
    return [str(run) for run in runs if _is_run(expand_path(str(run)))]


def _near_paths(wanted: str) -> list[str]:
    """Return up to three paths of runs that are similar to a wrong one in its last part, the most similar first."""
    whole, _, last = wanted.rpartition("/")
    if not whole or not path_is(expand_path(whole), Path.is_dir):
        return []
    return [f"{whole}/{name}" for name in near_words(last, _directories(expand_path(whole)), least_ratio=_LEAST_RATIO)]


def _stages(owners: list[Path], name: str, stage: str) -> list[Path]:
    """Return the run directories of a stage, or of all stages that a pattern matches.

    Args:
        owners: Directories of pipelines, oldest first.
        name: The name that the user typed for them.
        stage: Name of the stage, or a pattern.

    Raises:
        RunError: No pipeline has such a stage.
    """
    known = [(owner, [directory.name for directory in stage_directories(owner)]) for owner in owners]
    chosen = [
        stage_directory(owner, found)
        for owner, names in known
        for found in names
        if found == stage or (stage not in names and fnmatch.fnmatchcase(found, stage))
    ]
    if chosen:
        return chosen
    names = known[-1][1]
    expected = f"expected one of {', '.join(names)}" if names else "it is no pipeline"
    raise RunError(f"run {name} has no stage {stage!r}: {expected}")


def list_run_directories(runs_dir: str | Path = "runs") -> list[Path]:
    """Return the directories of the runs that `list_runs` returns; raises as `list_runs` does."""
    return [*_Folder(runs_dir).runs]


def _directories(runs_dir: str | Path) -> dict[str, Path]:
    """Return the run directories of a folder, by the names of its entries.

    Entries that lead to the same directory, such as a link to the newest run, all have the same path: that of the
    directory itself if it is among them.

    Raises:
        RunError: The folder cannot be read.
    """
    folder = Path(os.path.realpath(local_path(runs_dir, "runs_dir")))
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".") and _is_run(path)]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"{runs_dir}: cannot be read: {error.strerror}") from None
    places: dict[str, Path] = {}
    paths.sort(key=lambda path: (path.is_symlink(), path.name))
    return {path.name: places.setdefault(os.path.realpath(path), path) for path in paths}


def _has_runs(folder: Path) -> bool:
    try:
        return bool(_directories(folder))
    except RunError:
        return False


def _is_run(path: Path) -> bool:
    return path_is(path / JOB_FILE, Path.is_file)


def _name_and_moment(run_dir: Path) -> tuple[str, float]:
    """Return the name that a run was given, and when it was planned, in seconds since 1970.

    If job.json cannot be read, returns an empty name and the time of the file.
    """
    name = ""
    try:
        record = read_job_record(run_dir)
        name = record["name"]
        return name, datetime.fromisoformat(record["created"]).timestamp()
    except (RunError, ValueError):
        with contextlib.suppress(OSError):
            return name, (run_dir / JOB_FILE).stat().st_mtime
        return name, 0.0
