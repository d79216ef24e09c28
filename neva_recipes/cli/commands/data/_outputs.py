"""The files that the actions of `nemo-run data` write: new ones, whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

from neva_recipes.cli.arguments import UsageError
from neva_recipes.config import path_is
from neva_recipes.storage.exports import require_new
from neva_recipes.storage.whole import written_whole

__all__ = ["require_folder", "require_outputs", "write_output"]


def require_folder(flag: str, folder: Path | None) -> None:
    """Check that what a flag names is a folder, if it was given.

    Raises:
        UsageError: It is none.
    """
    if folder is not None and not path_is(folder, Path.is_dir):
        raise UsageError(f"{flag} {folder}: {'is no folder' if path_is(folder) else 'does not exist'}")


def require_outputs(outputs: Iterable[Path | None]) -> None:
    """Check that files can be written, before the work for them is done.

    Raises:
        CheckpointError: One is there already, or cannot be written.
        UsageError: Two of them are the same.
    """
    named = [path for path in outputs if path is not None]
    for path in named:
        require_new(path, "file")
        if named.count(path) > 1:
            raise UsageError(f"{path}: is named twice as an output")


def write_output(path: Path, data: bytes) -> None:
    """Write a file.

    Raises:
        CheckpointError: It is there already, or cannot be written.
    """
    with written_whole(path, "file") as writing:
        writing.write_bytes(data)
