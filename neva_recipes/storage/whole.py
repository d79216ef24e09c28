"""Files and directories that are written whole or not at all."""

import errno
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

__all__ = ["copy_file", "reading_errors", "written_whole"]

_UNFINISHED = r"\.{}\.unfinished(-\d+)?"
"""Names of what is being written; without a number in older versions."""

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What no reading ends with, whatever file the system names."""

_BLOCK = 4 * 2**20


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
        CheckpointError: The target exists or cannot be written, or another file cannot be read.
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
        if (other := _file_that_is_read(error, target)) is not None:
            raise CheckpointError(f"{other}: cannot be read: {error.strerror}") from None
        raise cannot_be_written(target, error) from None
    finally:
        for made in missing:  # the innermost first; one that holds something stays
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


def _file_that_is_read(error: OSError, target: Path) -> Path | None:
    """Return the file of an error, if it is neither the target nor a folder in which the target is made."""
    if not isinstance(error.filename, str) or error.errno in _OF_WRITING:
        return None
    named, path = Path(error.filename), target.absolute()
    file = named.absolute()
    is_above = path.is_relative_to(file)
    is_within = any(file.is_relative_to(place) for place in (path, unfinished_export(path)))
    return None if is_above or is_within else named


@contextmanager
def reading_errors(file: Path) -> Iterator[None]:
    """Tell a file that cannot be read from a target that cannot be written, also where the system names no file.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}") from None


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file.

    Raises:
        CheckpointError: It cannot be read.
        OSError: The copy cannot be written.
    """
    block = memoryview(bytearray(_BLOCK))
    with reading_errors(source):
        reading = source.open("rb", buffering=0)
    with reading, target.open("wb", buffering=0) as writing:
        while True:
            with reading_errors(source):
                count = reading.readinto(block)
            if not count:
                return
            done = 0
            while done < count:
                done += writing.write(block[done:count])


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
