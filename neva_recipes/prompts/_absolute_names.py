"""Finds what to take out of absolute image names that lead nowhere, such as those of another machine."""

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import path_is

__all__ = ["Begin", "begin_of_absolute"]

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_SEPARATORS = re.compile(r"[\\/]+")

_PLAIN = re.compile(r"/[\w /.-]*", re.ASCII)
"""Begins of names that JSON and sed write as they are."""


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
        folders: Folders that may have the first one without its begin.
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
    return Begin(separator.join([*common, ""]) if len(common) > 1 else "", None, "/".join(parts[len(common) :]))


def _parts(name: str) -> list[str]:
    """Return the folders of an absolute name, the first of them empty or a drive, and the file; empty for others."""
    if _WINDOWS.match(name):
        return _SEPARATORS.split(name)
    return name.split("/") if name.startswith("/") else []
