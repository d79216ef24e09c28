"""Backup of the files that an attempt to resume a run replaces, until that attempt trains.

The process that starts the attempt makes the backup, and the worker drops it when it trains. If the attempt fails
before, the process that writes its final state restores the files. After several attempts in a row that have not
trained, the files from before the first one are restored. Checkpoints that an attempt renames get their names back in
the same way.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from neva_recipes.run_directory.layout import CHECKPOINTS, JOB_FILE, LAUNCH_FILE, PLAN_FILE, RECIPE_FILE, STATE_FILE
from neva_recipes.run_directory.names import earlier_recipes

__all__ = ["before", "keep_before", "keep_names", "let_go", "put_back"]

_FOLDER = ".before"
_FILES = (PLAN_FILE, JOB_FILE, LAUNCH_FILE, RECIPE_FILE)
_NAMES = "names.json"


def before(run_dir: Path) -> Path:
    """Return the folder of the backup, which does not exist once the attempt has trained."""
    return run_dir / _FOLDER


def keep_before(run_dir: Path) -> None:
    """Back up the files that an attempt is about to replace, and state.json, unless an earlier backup still exists.

    Raises:
        OSError: They cannot be copied.
    """
    unfinished = run_dir / f"{_FOLDER}.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    if before(run_dir).is_dir():
        return
    unfinished.mkdir()
    for name in (*_FILES, STATE_FILE):
        if (run_dir / name).exists():
            shutil.copy2(run_dir / name, unfinished / name)
    unfinished.rename(before(run_dir))


def keep_names(run_dir: Path, names: Mapping[str, str]) -> None:
    """Back up the names of checkpoints that an attempt is about to rename; does nothing without a backup.

    Args:
        run_dir: The run directory.
        names: The present names by the new names.

    Raises:
        OSError: They cannot be written.
    """
    if before(run_dir).is_dir():
        kept = before(run_dir) / _NAMES
        unfinished = kept.with_suffix(".new")
        unfinished.write_text(json.dumps({**_names(run_dir), **names}), encoding="utf-8")
        unfinished.replace(kept)


def _names(run_dir: Path) -> dict[str, str]:
    kept = before(run_dir) / _NAMES
    names: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    return names


def let_go(run_dir: Path) -> None:
    """Drop the backup: the run keeps the new recipe."""
    unfinished = run_dir / f"{_FOLDER}.new"
    if before(run_dir).is_dir():  # renamed first, because a partly removed backup must not be restored
        shutil.rmtree(unfinished, ignore_errors=True)
        before(run_dir).rename(unfinished)
    shutil.rmtree(unfinished, ignore_errors=True)


def put_back(run_dir: Path) -> None:
    """Restore the files and names, except state.json, which the caller restores; the backup stays until `let_go`.

    Can be repeated if the process is killed on the way.

    Raises:
        OSError: They cannot be restored.
    """
    kept = before(run_dir)
    earlier = earlier_recipes(run_dir)
    if earlier and (kept / RECIPE_FILE).is_file() and earlier[-1].read_bytes() == (kept / RECIPE_FILE).read_bytes():
        earlier[-1].unlink()
    for name in _FILES:
        if (kept / name).exists():
            copy = run_dir / f".{name}.{os.getpid()}.new"
            shutil.copy2(kept / name, copy)
            copy.replace(run_dir / name)
    checkpoints = run_dir / CHECKPOINTS
    for aside, name in _names(run_dir).items():
        if (checkpoints / aside).exists() and not (checkpoints / name).exists():
            (checkpoints / aside).rename(checkpoints / name)
