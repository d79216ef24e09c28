"""Resumes a run from an earlier checkpoint: newer checkpoints are set aside, not removed."""

import re
from collections.abc import Sequence
from pathlib import Path

from neva_recipes.config import RunError, expand_path
from neva_recipes.run_directory.attempt import keep_names
from neva_recipes.run_directory.layout import CHECKPOINTS, metrics_file
from neva_recipes.run_directory.names import list_checkpoints, step_of
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.state import clear_unfinished, write_atomically
from neva_recipes.storage.checkpoints import next_best, what_is_wrong

__all__ = ["ASIDE", "find_earlier", "free_name", "set_all_aside", "set_newer_aside"]

ASIDE = "aside-"
"""Prefix in the names of checkpoints that were set aside: they are kept, but no run goes on from them."""


def find_earlier(run_dir: Path, wanted: str) -> Path:
    """Return the checkpoint of a run that a user names: `step-4`, `step-00000004`, `4`, or its path.

    Raises:
        RunError: There is no such checkpoint, or it is damaged.
    """
    found = list_checkpoints(run_dir / CHECKPOINTS)
    match = re.fullmatch(r"(?:step-)?(\d+)", Path(wanted).name)
    steps = {step_of(path): path for path in found}
    chosen = steps.get(int(match[1])) if match else None
    if chosen is not None and "/" in wanted and expand_path(wanted).resolve() != chosen.resolve():
        chosen = None
    if chosen is None:
        there = f"expected one of {', '.join(path.name for path in found)}" if found else "it has none yet"
        raise RunError(f"run {run_title(run_dir)} has no checkpoint {wanted!r}: {there}")
    if (problem := what_is_wrong(chosen, with_shards=True)) is not None:
        raise RunError(f"{problem}; {next_best(chosen)}")
    return chosen


def set_newer_aside(checkpoint: Path) -> list[str]:
    """Set the checkpoints after a given one aside by renaming them, and keep a copy of the metrics.

    They get their names back if the attempt fails before it trains.

    Args:
        checkpoint: The checkpoint to go on from, as `find_earlier` returns it.

    Returns:
        A line about each.
    """
    found = list_checkpoints(checkpoint.parent)
    return _set_aside(checkpoint.parent.parent, found[found.index(checkpoint) + 1 :])


def set_all_aside(run_dir: Path) -> list[str]:
    """Set all checkpoints of a run aside, which then begins anew; otherwise as `set_newer_aside`."""
    return _set_aside(run_dir, list_checkpoints(run_dir / CHECKPOINTS))


def _set_aside(run_dir: Path, checkpoints: Sequence[Path]) -> list[str]:
    lines = []
    metrics = metrics_file(run_dir)
    clear_unfinished(metrics.parent)
    if checkpoints and metrics.is_file():
        # The worker drops the rows of steps that it trains again.
        # The copy is made first: if this process is killed afterwards, it can be repeated.
        text = metrics.read_text(encoding="utf-8")
        copy = free_name(metrics.with_name(f"{ASIDE}{checkpoints[-1].name}.csv"), text)
        write_atomically(copy, text)
        lines.append(f"set aside: a copy of the metrics is {copy}")
    names = {path: free_name(path.with_name(f"{ASIDE}{path.name}")) for path in checkpoints}
    keep_names(run_dir, {aside.name: path.name for path, aside in names.items()})
    for path, aside in names.items():
        path.rename(aside)
        lines.append(f"set aside: {path.name} is {aside} now")
    return lines


def free_name(path: Path, text: str | None = None) -> Path:
    """Return a path, with a number after its name if a file with another content exists there.

    Args:
        path: The path.
        text: The content that a file there may have; `None` if none may be there.
    """
    number, found = 1, path
    while found.exists() and (text is None or found.read_text(encoding="utf-8", errors="replace") != text):
        number += 1
        found = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return found
