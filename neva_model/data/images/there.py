"""Finds out which of many image files can be used.

It lists folders, which is faster than looking up every file. It opens files that may have too many pixels, and others
as long as there is time; it decodes as many as there is time for.
"""

import itertools
import os
import random
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from neva_model.data.images.decoding import decode_images
from neva_recipes.prompts.pictures import Look, look_into, missing_image

__all__ = ["ImageNames"]

_Result = TypeVar("_Result")

_LISTED_PER_NAME, _LISTED_AT_LEAST = 20, 1000
"""Entries of a folder that are listed for each name; with more, looking up the files would be faster."""

_TOGETHER = 64
"""Number of files of a folder that a thread checks at a time."""


_SECONDS = 10.0
"""Time for the headers of small JPEG files, which only show whether a file is turned."""


class _File(NamedTuple):
    """An image file: its folder, and its name there or the position of a sample that names it."""

    folder: str
    name: str | int


class ImageNames:
    """The image names of many samples by folder, stored as numbers: a name takes 16 bytes, however long it is.

    Attributes:
        looked_into: Number of files whose header `unusable` has read.
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
        end = time.monotonic() + _SECONDS
        bad: list[_File] = []
        whole: list[_File] = []

        def looks(files: list[_File]) -> list[Look | None]:
            return [_look(file, _path(root, file, name_of), opens_small=time.monotonic() < end) for file in files]

        with ThreadPoolExecutor(max_workers=min(32, 4 * (os.cpu_count() or 1))) as pool:
            names_in = pool.map(lambda folder: self._listed(root, folder), self._folders)
            listed = dict(zip(self._folders, _counted(names_in, tell, "folders of images listed"), strict=True))
            for blocks, each, what in (
                ([[file] for file in self._unlisted(listed)], 1, "images looked for one by one"),
                (_spread_blocks(listed), _TOGETHER, "images looked at"),
            ):
                looked = _counted(pool.map(looks, blocks), tell, what, each)
                for file, look in (pair for pairs in map(_zipped, blocks, looked) for pair in pairs):
                    self._count(look)
                    (bad if look is None or look.problem is not None else whole).append(file)
        seen = decode_images(len(whole), lambda which: _path(root, whole[which], name_of), tell)
        self.whole, self.decoded = len(whole), seen.number
        return sorted(self._positions([*bad, *(whole[which] for which in seen.damaged)], name_of))

    def _count(self, look: Look | None) -> None:
        if look is not None:
            self.looked_into += look.is_read
            self.turned += look.is_turned
            self.several += look.has_several

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

    def _unlisted(self, listed: Mapping[str, Collection[str]]) -> Iterator[_File]:
        """Yield each file whose name the listing of its folder lacks, by the first position that names it."""
        for folder, (positions, own) in self._folders.items():
            hashes, first = np.unique(np.array(own), return_index=True)
            is_listed = np.isin(hashes, np.fromiter(map(hash, listed[folder]), dtype=np.int64))
            yield from (_File(folder, positions[place]) for place in np.sort(first[~is_listed]).tolist())

    def _positions(self, files: Iterable[_File], name_of: Callable[[int], str]) -> Iterator[int]:
        """Yield the positions of the samples that name some files."""
        hashes: dict[str, set[int]] = {}
        for folder, name in files:
            base = os.path.split(name_of(name))[1] if isinstance(name, int) else name
            hashes.setdefault(folder, set()).add(hash(base))
        for folder, wanted in hashes.items():
            positions, own = self._folders[folder]
            is_wanted: NDArray[Any] = np.isin(np.array(own), np.fromiter(wanted, dtype=np.int64))
            yield from np.array(positions)[is_wanted].tolist()


def _spread_blocks(listed: Mapping[str, Sequence[str]]) -> list[list[_File]]:
    """Return the files of folders in blocks, in an order that spreads over all of them."""
    blocks = [
        [_File(folder, name) for name in names[start : start + _TOGETHER]]
        for folder, names in listed.items()
        for start in range(0, len(names), _TOGETHER)
    ]
    return random.Random(0).sample(blocks, len(blocks))


def _zipped(files: list[_File], looks: list[Look | None]) -> Iterator[tuple[_File, Look | None]]:
    return zip(files, looks, strict=True)


def _path(root: Path, file: _File, name_of: Callable[[int], str]) -> Path:
    return root / name_of(file.name) if isinstance(file.name, int) else root / file.folder / file.name


def _look(file: _File, path: Path, *, opens_small: bool) -> Look | None:
    """Return what a file shows; `None` if it is missing, which one from a listing is not."""
    if isinstance(file.name, int) and missing_image(path) is not None:
        return None
    return look_into(path, opens_small=opens_small)


def _counted(results: Iterable[_Result], tell: Callable[[str], None], what: str, each: int = 1) -> Iterator[_Result]:
    """Yield results as they come, and tell how many of `what` they make, `each` at a time."""
    for number, result in enumerate(results):
        tell(f"{number * each:,} {what}")
        yield result
