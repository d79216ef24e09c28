"""Files and directories that are written whole or not at all."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from neva_recipes.config import CheckpointError
from neva_recipes.storage.exports import cannot_be_written, require_new, unfinished_export

__all__ = ["reading_errors", "written_whole"]

_UNFINISHED = r"\.{}\.unfinished(-\d+)?"
"""Names of what is being written; without a number in older versions."""


@contextmanager
def written_whole(target: Path, kind: Literal["file", "directory"]) -> Iterator[Path]:
    """Give a path to write to, and rename it to the target when the block has ended without an error.

    The path lies beside the target and is hidden. Each process has its own, so that of two that write the same target
    one is whole and the other fails. What killed processes have left there is removed.

    Args:
        target: The path that it gets in the end.
        kind: What is written; it is there already, and is empty.

    Yields:
        The path to write to.

    Raises:
        CheckpointError: The target exists or cannot be written.
    """
    require_new(target, kind)
    missing = [folder for folder in target.absolute().parents if not os.path.lexists(folder)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        with _held(unfinished_export(target), kind) as path:
            yield path
            _settle(path)
            require_new(target, kind)
            path.rename(target)
    except OSError as error:
        raise cannot_be_written(target, error) from None
    finally:
        for made in missing:  # the innermost first; one that holds something stays
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


@contextmanager
def reading_errors(source: Path) -> Iterator[None]:
    """Tell files of a folder that cannot be read from a target that cannot be written.

    Raises:
        CheckpointError: A file of the folder cannot be read.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and source in Path(error.filename).parents:
            raise CheckpointError(f"{error.filename}: cannot be read: {error.strerror}") from None
        raise


@contextmanager
def _held(path: Path, kind: Literal["file", "directory"]) -> Iterator[Path]:
    """Make an empty file or directory, whose lock says that somebody is writing it, and remove it if it stays there."""
    path.mkdir() if kind == "directory" else os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, where leftovers are left
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    finally:
        os.close(descriptor)
        _remove(path)


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes have begun of a target: that which nobody holds."""
    name = re.compile(_UNFINISHED.format(re.escape(target.name)))
    for path in target.parent.iterdir():
        if not name.fullmatch(path.name) or path.is_symlink():
            continue
        with suppress(OSError):  # it is held, or gone by now
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        path.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Have what was written outlive a loss of power before it gets its name."""
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
