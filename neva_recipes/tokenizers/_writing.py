"""Writes a tokenizer whole or not at all."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from neva_recipes.storage.exports import cannot_be_written, require_new, unfinished_export

__all__ = ["write_directory", "write_file"]


def write_file(target: Path, content: bytes) -> None:
    """Write a file, which gets its name only when it is complete.

    Raises:
        CheckpointError: It exists or cannot be written.
    """
    require_new(target, "file")
    unfinished = unfinished_export(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(unfinished, content)
        unfinished.rename(target)
        _settle(target.parent)
    except OSError as error:
        raise cannot_be_written(target, error) from None
    finally:
        unfinished.unlink(missing_ok=True)


def write_directory(target: Path, contents: Mapping[str, bytes], copied: Iterable[Path]) -> None:
    """Write a directory, which gets its name only when it is complete.

    Args:
        target: The directory.
        contents: The content of each file by name.
        copied: Further files, which keep their names; one of the contents takes the place of a file of its name.

    Raises:
        CheckpointError: It exists or cannot be written, or a file that is copied cannot be read.
    """
    require_new(target, "directory")
    unfinished = unfinished_export(target)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of an attempt that was killed
        unfinished.mkdir(parents=True)
        for path in (path for path in copied if path.name not in contents):
            _write(unfinished / path.name, path.read_bytes())
        for name, content in contents.items():
            _write(unfinished / name, content)
        _settle(unfinished)
        unfinished.rename(target)
        _settle(target.parent)
    except OSError as error:
        raise cannot_be_written(target, error) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
