"""Files and directories that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from neva_recipes.config import CheckpointError
from neva_recipes.run_directory.layout import LOCK_FILE
from neva_recipes.run_directory.lock import lock_or_warn
from neva_recipes.storage.exports import cannot_be_written, require_new, unfinished_export

__all__ = ["written_whole"]


@contextmanager
def written_whole(target: Path, kind: Literal["file", "directory"]) -> Iterator[Path]:
    """Give a path to write to, and rename it to the target when the block has ended without an error.

    The path lies in a hidden folder beside the target, which only one process can use at a time. What a killed process
    has left there is removed by the next one.

    Args:
        target: The path that it gets in the end.
        kind: What is written; a directory is there already, and is empty.

    Yields:
        The path to write to.

    Raises:
        CheckpointError: The target exists or cannot be written, or another process is writing it.
    """
    require_new(target, kind)
    missing = [folder for folder in target.absolute().parents if not os.path.lexists(folder)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _own_folder(target) as folder:
            path = folder / target.name
            if kind == "directory":
                path.mkdir()
            yield path
            _settle(path)
            require_new(target, kind)
            path.rename(target)
            _sync(target.parent)
    except OSError as error:
        raise cannot_be_written(target, error) from None
    finally:
        for made in missing:  # the innermost first; one that holds something stays
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


@contextmanager
def _own_folder(target: Path) -> Iterator[Path]:
    """Give a new hidden folder beside the target, which is removed at the end."""
    folder = unfinished_export(target)
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise CheckpointError(f"{folder}: is in the way of {target.name}: remove it")
    folder.mkdir(exist_ok=True)
    descriptor = lock_or_warn(folder)
    if descriptor is None or not _is_lock_of(descriptor, folder):
        if descriptor is not None:
            os.close(descriptor)
        raise CheckpointError(f"{target}: another command is writing it just now")
    try:
        for entry in folder.iterdir():  # of a process that was killed
            if entry.name != LOCK_FILE:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _is_lock_of(descriptor: int, folder: Path) -> bool:
    """Return whether a lock is that of a folder that is still there: its last user may just have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), (folder / LOCK_FILE).stat())
    except FileNotFoundError:
        return False


def _settle(path: Path) -> None:
    """Have what was written outlive a loss of power."""
    for folder, _, files in os.walk(path):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))
    if path.is_file():
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
