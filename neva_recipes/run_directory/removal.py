"""Removes and syncs directories so that no kill and no crash leaves a partial directory that looks complete."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = ["REMOVED", "remove_directory", "sweep_directories", "sync_files"]

REMOVED = ".removed-"
"""Prefix in the name of a directory that is being removed."""


def remove_directory(path: Path) -> None:
    """Rename a directory with the prefix `REMOVED`, then remove it.

    If the process is killed, the rest has the new name, and `sweep_directories` removes it. A directory that no longer
    exists is no error.

    Raises:
        OSError: It cannot be renamed, and is still complete; or its content cannot be removed.
    """
    hidden = path if path.name.startswith(REMOVED) else path.with_name(f"{REMOVED}{path.name}")
    with contextlib.suppress(FileNotFoundError):
        if hidden != path:
            if hidden.exists():  # left by a killed removal
                shutil.rmtree(hidden)
            path.rename(hidden)
        shutil.rmtree(hidden)


def sweep_directories(folder: Path, *beginnings: str) -> None:
    """Remove the directories that killed processes have left in a folder, by the prefixes of their names.

    Skips directories that cannot be removed.
    """
    for beginning in beginnings:
        for path in folder.glob(f"{beginning}*"):
            shutil.rmtree(path, ignore_errors=True)


def sync_files(paths: Iterable[str | Path]) -> None:
    """Sync files and folders to the disk, so that they survive a crash of the machine.

    Raises:
        OSError: A file or folder could not be written.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems cannot sync a folder and have no substitute.
            if error.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise
        finally:
            os.close(descriptor)
