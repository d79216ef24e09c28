"""Finds the folder that image names are relative to, where another one near it was named, or one of another machine."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import path_is

__all__ = ["Begin", "begin_of_absolute", "other_folder"]

_LISTED = 20_000
"""Entries of a folder among which folders are looked for: about ten milliseconds."""

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_SEPARATORS = re.compile(r"[\\/]+")

_PLAIN = re.compile(r"/[\w /.-]*", re.ASCII)
"""Begins of names that JSON and sed write as they are."""


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


class Begin(NamedTuple):
    """How absolute names begin.

    Attributes:
        text: The folders that all of them begin with; empty if there is none.
        folder: A folder that has the first of them without these; `None` if none is known.
        rest: The first of them without these.
    """

    text: str
    folder: Path | None
    rest: str

    def taken_out(self) -> str:
        """Return as text how to take the folders out of the names of a data file."""
        how = f" (sed -i 's|\"{self.text}|\"|g' FILE)" if _PLAIN.fullmatch(self.text) else ""
        slashes = ", and write / in them" if "\\" in self.text else ""
        return f"take {self.text or 'the folders of another machine'} out of such names{slashes}{how}"


def begin_of_absolute(name: str, others: Iterable[str], folders: Sequence[Path]) -> Begin | None:
    """Return how the absolute ones of some names begin; `None` if the first is not absolute.

    Args:
        name: The first name, of Linux or Windows.
        others: The others.
        folders: Folders that may have the first one without its begin; of the first, the folders near it too.
    """
    parts = _parts(name)
    if not parts:
        return None
    common = parts[:-1]
    for other in map(_parts, others):
        if other:
            pairs = zip(common, other[:-1], strict=False)
            common = [part for part, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
    separator = "\\" if "\\" in name else "/"
    for count in range(1, len(common) + 1):
        rest = "/".join(parts[count:])
        folder = next((folder for folder in folders if path_is(folder / rest, Path.is_file)), None)
        if folder is not None:
            return Begin(separator.join([*parts[:count], ""]), folder, rest)
    rest = "/".join(parts[len(common) :])
    begin = separator.join([*common, ""]) if len(common) > 1 else ""
    return Begin(begin, other_folder(folders[0], rest) if begin else None, rest)


def _parts(name: str) -> list[str]:
    """Return the folders of an absolute name, the first of them empty or a drive, and the file; empty for others."""
    if _WINDOWS.match(name):
        return _SEPARATORS.split(name)
    return name.split("/") if name.startswith("/") else []
