"""The local data files that a recipe names, and the state of a file, which tells whether cached results still hold."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError, Recipe, expand_path, listed_paths, path_is
from neva_recipes.plan.findings import field_value

__all__ = ["FileState", "file_state", "files_here", "named_files", "shares_of"]


class FileState(NamedTuple):
    """The state of a file.

    Attributes:
        path: Its path.
        size: Its size in bytes.
        modified: Its modification time, in nanoseconds since 1970.
    """

    path: Path
    size: int
    modified: int


def file_state(path: Path) -> FileState:
    """Return the state of a file.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return FileState(path, status.st_size, status.st_mtime_ns)


def named_files(recipe: Recipe, field: str) -> list[Path]:
    """Return the local files that a field names."""
    return files_here(listed_paths(field_value(recipe, field)))


def files_here(names: Iterable[str]) -> list[Path]:
    """Return the names that are local files, as paths."""
    return [path for path in map(expand_path, names) if path_is(path, Path.is_file)]


def shares_of(paths: Iterable[Path]) -> dict[Path, float]:
    """Return each file's share of the bytes of all of them."""
    sizes = {path: _size(path) for path in paths}
    total = sum(sizes.values()) or 1
    return {path: size / total for path, size in sizes.items()}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading the file reports it
        return 0
