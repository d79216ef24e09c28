"""Finds the folder that image names are relative to, where another one near it was named."""

import itertools
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from neva_recipes.config import path_is

__all__ = ["other_folder"]

_LISTED = 20_000
"""Entries of a folder among which folders are looked for: about ten milliseconds."""


def other_folder(folder: Path, name: str) -> Path | None:
    """Return a folder above the given one, or directly in it, that has an image; `None` if none has.

    Args:
        folder: The folder without the image. If it is relative, so is the result.
        name: The image's name.
    """
    if os.path.isabs(name):  # noqa: PTH117 a name with a zero byte is no path
        return None
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 links stay as the user has named them
    found = next((near for near in _near(whole) if path_is(near / name, Path.is_file)), None)
    return found if found is None or folder.is_absolute() else Path(os.path.relpath(found))


def _near(folder: Path) -> Iterator[Path]:
    yield from folder.parents
    try:
        yield from _folders_in(folder, folder.stat().st_mtime_ns)
    except (OSError, ValueError):
        return


@lru_cache(maxsize=4)
def _folders_in(folder: Path, _: int) -> tuple[Path, ...]:
    with os.scandir(folder) as listing:
        names = [entry.name for entry in itertools.islice(listing, _LISTED) if entry.is_dir()]
    return tuple(folder / name for name in sorted(names))
