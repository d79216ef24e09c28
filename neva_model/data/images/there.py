"""Finds out which of many image files can be used.

It lists folders, which is faster than looking up every file. It opens files that may have too many pixels, and decodes
as many as there is time for.
"""

import itertools
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from neva_model.data.images.decoding import decode_images
from neva_recipes.prompts.pictures import Look, header_problem, look_into, missing_image

__all__ = ["ImageNames"]

_Result = TypeVar("_Result")

_LISTED_PER_NAME, _LISTED_AT_LEAST = 20, 1000
"""Entries of a folder that are listed for each name; with more, looking up the files would be faster."""

_TOGETHER = 64
"""Number of files of a folder that a thread checks at a time."""


class _File(NamedTuple):
    """An image file: its folder and its name there, or no folder and the position of a sample that names it."""

    folder: str | None
    name: str | int


class ImageNames:
    """The image names of many samples by folder, stored as numbers: a name takes 16 bytes, however long it is.

    Attributes:
        looked_into: Number of files that `unusable` has opened, without those that the listing of a folder lacks.
        turned: Number of those with an EXIF rotation.
        several: Number of those with several pages or frames.
        whole: Number of files that `unusable` has found, none of them with too many pixels.
        decoded: Number of those that it has decoded.
    """

    def __init__(self) -> None:
        """Start without names."""
        self.looked_into = self.turned = self.several = self.whole = self.decoded = 0
        self._folders: dict[str, tuple[array[int], array[int]]] = {}

    def add(self, position: int, name: str) -> None:
        """Store the image name of the sample at a position."""
        folder, base = os.path.split(name)
        found = self._folders.get(folder)
        if found is None:
            found = self._folders[folder] = array("q"), array("q")
        found[0].append(position)
        found[1].append(hash(base))

    def unusable(self, root: Path, name_of: Callable[[int], str], tell: Callable[[str], None]) -> list[int]:
        """Return the positions of samples whose image is missing under `root` or cannot be used.

        Names are compared by 64-bit hashes: among a million, a missing one is overlooked with odds of 1 to 10^7.

        Args:
            root: Folder that the names are relative to.
            name_of: Returns the image name of the sample at a position. It is called for names that the listing lacks;
                they need not be missing, since a file system may spell them differently.
            tell: Called again and again with how far the check has got.
        """
        whole: list[_File] = []
        with ThreadPoolExecutor(max_workers=min(32, 4 * (os.cpu_count() or 1))) as pool:
            names_in = pool.map(lambda folder: self._listed(root, folder), self._folders)
            listed = dict(zip(self._folders, _counted(names_in, tell, "folders of images listed"), strict=True))
            unlisted = [
                position
                for folder, names in listed.items()
                for position in self._positions(folder, {hash(name) for name in names}, among=False)
            ]
            unusable = pool.map(lambda position: _is_unusable(root / name_of(position)), unlisted)
            looked_up = _counted(unusable, tell, "images looked for one by one")
            found = []
            for position, is_bad in zip(unlisted, looked_up, strict=True):
                if is_bad:
                    found.append(position)
                else:
                    whole.append(_File(None, position))
            blocks = [
                (folder, names[start : start + _TOGETHER])
                for folder, names in listed.items()
                for start in range(0, len(names), _TOGETHER)
            ]
            looks = pool.map(lambda block: [look_into(root / block[0] / name) for name in block[1]], blocks)
            looked_into = _counted(looks, tell, "images looked at", _TOGETHER)
            for (folder, names), found_in in zip(blocks, looked_into, strict=True):
                found += self._too_large(folder, names, found_in)
                kept = zip(names, found_in, strict=True)
                whole += [_File(folder, name) for name, look in kept if look.problem is None]
        return sorted({*found, *self._damaged(whole, root, name_of, tell)})

    def _damaged(
        self, files: list["_File"], root: Path, name_of: Callable[[int], str], tell: Callable[[str], None]
    ) -> Iterator[int]:
        """Yield the positions of samples whose image cannot be decoded, among those that there is time for."""

        def path_of(which: int) -> Path:
            folder, name = files[which]
            return root / name_of(name) if isinstance(name, int) else root / (folder or "") / name

        seen = decode_images(len(files), path_of, tell)
        self.whole, self.decoded = len(files), seen.number
        hashes: dict[str, set[int]] = {}
        for folder, name in (files[which] for which in seen.damaged):
            if isinstance(name, int):
                yield name
            else:
                hashes.setdefault(folder or "", set()).add(hash(name))
        for folder, damaged in hashes.items():
            yield from self._positions(folder, damaged, among=True)

    def _too_large(self, folder: str, names: list[str], looks: list[Look]) -> list[int]:
        """Count the looks into some files of a folder; return the positions of those with too many pixels."""
        self.looked_into += sum(look.is_read for look in looks)
        self.turned += sum(look.is_turned for look in looks)
        self.several += sum(look.has_several for look in looks)
        hashes = {hash(name) for name, look in zip(names, looks, strict=True) if look.problem is not None}
        return self._positions(folder, hashes, among=True) if hashes else []

    def _listed(self, root: Path, folder: str) -> list[str]:
        """Return the names from the listing of a folder that are also wanted."""
        positions, hashes = self._folders[folder]
        limit, wanted = _LISTED_AT_LEAST + _LISTED_PER_NAME * len(positions), set(hashes)
        try:
            with os.scandir(root / folder) as listing:
                entries = (entry for entry in itertools.islice(listing, limit) if hash(entry.name) in wanted)
                return [entry.name for entry in entries if entry.is_file()]
        except (OSError, ValueError):
            return []

    def _positions(self, folder: str, hashes: set[int], *, among: bool) -> list[int]:
        """Return the positions of the names in a folder whose hash is in `hashes`, or is not."""
        positions, own = self._folders[folder]
        is_found: NDArray[Any] = np.isin(np.array(own), np.fromiter(hashes, dtype=np.int64))
        chosen: list[int] = np.array(positions)[is_found == among].tolist()
        return chosen


def _counted(results: Iterable[_Result], tell: Callable[[str], None], what: str, each: int = 1) -> Iterator[_Result]:
    """Yield results as they come, and tell how many of `what` they make, `each` at a time."""
    for number, result in enumerate(results):
        tell(f"{number * each:,} {what}")
        yield result


def _is_unusable(path: Path) -> bool:
    return (missing_image(path) or header_problem(path)) is not None
