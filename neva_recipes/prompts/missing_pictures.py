"""Finds out why the image file of a sample is missing, for both the plan and the worker."""

import itertools
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from neva_recipes.config import path_is
from neva_recipes.prompts._other_folder import Begin, begin_of_absolute, other_folder
from neva_recipes.prompts.pictures import missing_image

__all__ = ["Lost", "lost_image", "missing_file", "missing_named_image"]

_LISTED = 200_000
"""Number of entries of a folder that are searched for a name with another spelling."""

_KEPT = 1_000_000
"""Names in folders after which listings are forgotten; a name takes about 200 bytes."""

_URL = re.compile(r"[a-zA-Z][\w+.-]*://")


class Lost(NamedTuple):
    """Why the image of a sample is missing.

    Attributes:
        reason: What exists instead, or what the name is.
        remedy: What to do.
        folder: The other folder that the image is in; `None` if that is not the reason.
    """

    reason: str
    remedy: str
    folder: Path | None = None


def missing_named_image(folder: Path, name: str, setting: str) -> str | None:
    """Return why the image file of a sample is missing, as text; `None` if it exists.

    Args:
        folder: Folder that its name is relative to.
        name: Its name.
        setting: The setting that names the folder.
    """
    if (problem := missing_image(folder / name)) is None:
        return None
    lost = lost_image(folder, name, setting)
    return missing_image(folder / name, setting) if lost is None else f"{problem}: {lost.reason}; {lost.remedy}"


def missing_file(path: Path) -> str | None:
    """Return why an image file that a user names is missing, as text; `None` if it exists.

    Args:
        path: The file.
    """
    if (problem := missing_image(path)) is None:
        return None
    place = path.absolute()
    name = str(place.relative_to(place.anchor))
    there = _spelled_otherwise(Path(place.anchor), name)
    return problem if there is None else f"{problem}: {_difference(name, f'{place.anchor}{there}')}"


def lost_image(
    folder: Path, name: str, setting: str, beside: Path | None = None, others: Iterable[str] = ()
) -> Lost | None:
    """Return why there is no image file of this name; `None` if unknown.

    Args:
        folder: Folder that the name is relative to.
        name: The name, as the sample has it.
        setting: The setting that names the folder.
        beside: A further folder that the image may be in, such as that of the data file.
        others: Names of further missing images.
    """
    if name.startswith("data:"):
        return Lost("it is the image itself, not the name of a file", "write such images to files")
    if name.startswith("file://"):
        return Lost("it is a URL", "take file:// out of such names")
    if _URL.match(name):
        return Lost("it is a URL, and nothing is downloaded", "download such images, and name their files")
    if path_is(folder / name, Path.is_dir):
        return Lost("it is a folder", "name the image file")
    there = _spelled_otherwise(folder, name)
    if there is not None:
        return Lost(_difference(name, there), "rename one to be like the other")
    begin = begin_of_absolute(name, others, [folder] if beside is None else [folder, beside])
    if begin is not None:
        return _lost_absolute(folder, begin, setting)
    if "\\" in name:
        slashed = name.replace("\\", "/")
        is_there = path_is(folder / slashed, Path.is_file) or _spelled_otherwise(folder, slashed) is not None
        what = f", and {slashed!r:.200} is there" if is_there else ""
        return Lost(f"folders are parted by / in a name, not by \\{what}", "write / in such names")
    other = other_folder(folder, name)
    if other is None and beside is not None and path_is(beside / name, Path.is_file):
        other = beside
    if other is not None:
        remedy = f"set {setting}={shlex.quote(str(other))} if the others are there too"
        return Lost(f"it is in {other}", remedy, other)
    return None


def _lost_absolute(folder: Path, begin: Begin, setting: str) -> Lost:
    remedy = begin.taken_out()
    if begin.folder is None:
        return Lost(f"it is absolute, and {setting} does not count for it", f"{remedy}: the rest is looked for there")
    reason = f"it is absolute, and {begin.rest!r:.200} is in {begin.folder}"
    if begin.folder == folder:
        return Lost(reason, remedy)
    return Lost(reason, f"{remedy}, and set {setting}={shlex.quote(str(begin.folder))}", begin.folder)


def _difference(name: str, there: str) -> str:
    if _composed(name) == _composed(there):
        return (
            "there is a file of that name, but its letters with accents are written otherwise (one character or two, "
            "Unicode's NFC or NFD)"
        )
    return f"there is {there!r:.200}, and small letters are not capital ones"


def _spelled_otherwise(folder: Path, name: str) -> str | None:
    """Return the name of a file that differs only in case or in the composition of letters, if there is one."""
    found = PurePosixPath()
    for part in PurePosixPath(name).parts:
        if not path_is(folder / found / part):
            like = _names(folder / found).get(_folded(part))
            if like is None:
                return None
            part = like
        found /= part
    return str(found) if path_is(folder / found, Path.is_file) else None


def _names(folder: Path) -> dict[str, str]:
    """Return the names in a folder, by their form without case and composition."""
    try:
        return _listings.names(folder)
    except (OSError, ValueError):
        return {}


class _Listings:
    """Listings of folders, so that a folder is listed once for all the images that are missing in it."""

    def __init__(self) -> None:
        self._by_folder: dict[Path, tuple[int, dict[str, str]]] = {}
        self._kept = 0

    def names(self, folder: Path) -> dict[str, str]:
        """Return the names in a folder, by their form without case and composition.

        Raises:
            OSError: The folder cannot be listed.
        """
        changed = folder.stat().st_mtime_ns
        known = self._by_folder.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        if self._kept > _KEPT:
            self._by_folder.clear()
            self._kept = 0
        with os.scandir(folder) as listing:
            names = {_folded(entry.name): entry.name for entry in itertools.islice(listing, _LISTED)}
        self._by_folder[folder] = changed, names
        self._kept += len(names)
        return names


_listings = _Listings()


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _composed(_composed(text).casefold())
