"""Looks for the images that the records of a data file name, and into as many of them as time allows."""

import os
import random
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import POINTER, is_pointer, path_is
from neva_recipes.prompts.missing_pictures import Lost, lost_image
from neva_recipes.prompts.pictures import BEGIN, can_be_too_large, image_format, is_turned, look_into

__all__ = ["Images"]

_BEGINS_READ = 64
"""Images that are always looked into; of further ones those that may have too many pixels, and others in time left."""

_SHOWN = 500
"""Characters of an image name that are shown, since some data sets hold the image in place of its name."""


@dataclass
class _Other:
    """An image that is only looked for at first: the first sample that names it, and how many do."""

    place: str
    records: int = 0


class Images:
    """Looks for the images that records name, and checks them.

    Attributes:
        looked_for: Number of names looked for.
        missing: Names of the missing images, each with its sample.
        elsewhere: Number of images that exist, but outside of the folder, by an absolute name.
        first_elsewhere: The first of these.
        unusable: Images that exist but cannot be used, each with the first sample that names it, and the reason.
        turned: Number of images with an EXIF rotation, among those that were looked into.
        first_turned: The first of these.
        several: Number of images with several pages or frames, among the same.
        first_several: The first of these.
    """

    def __init__(self, folder: Path, deadline: float, beside: Path) -> None:
        """Start without names.

        Args:
            folder: Folder that names are relative to.
            deadline: When no more images are looked for, as `time.perf_counter` counts.
            beside: A further folder that the images may be in.
        """
        self.looked_for = 0
        self.missing: list[str] = []
        self.elsewhere = 0
        self.first_elsewhere = ""
        self.unusable: list[tuple[str, str]] = []
        self.turned = self.several = 0
        self.first_turned = self.first_several = ""
        self._missing_names: list[str] = []
        self._folder = folder
        self._inside = os.path.join(os.path.abspath(folder), "")  # noqa: PTH100, PTH118 as names are written
        self._beside = beside
        self._has_folder = path_is(folder, Path.is_dir)
        self._deadline = deadline
        self._problems: dict[str, str | None] = {}
        """What is wrong with each image that was looked into."""
        self._others: dict[str, _Other] = {}

    @property
    def different(self) -> int:
        """Number of different images that exist."""
        return len(self._problems.keys() | self._others.keys())

    @property
    def looked_into(self) -> int:
        """Number of images whose first bytes were read."""
        return len(self._problems)

    def lost(self, setting: str) -> Lost | None:
        """Return why the first of the missing images is missing; `None` if unknown, or if none is.

        Args:
            setting: The setting that names the folder.
        """
        if not self._missing_names:
            return None
        first, *others = self._missing_names
        return lost_image(self._folder, first, setting, self._beside, others)

    def can_use(self, name: str, place: str) -> bool | None:
        """Return whether an image can be used, as far as can be seen; `None` if no time is left to look.

        Args:
            name: Its name.
            place: The name of its sample, for messages.
        """
        if not self._has_folder:
            return True
        if self.looked_for and time.perf_counter() > self._deadline:
            return None
        self.looked_for += 1
        size = _size_of(os.path.join(self._folder, name))  # noqa: PTH118 a Path takes as long as the stat itself
        if size is None:
            self._missing_names.append(name)
            self.missing.append(f"{name:.{_SHOWN}} ({place})")
            return False
        if name.startswith("/") and not name.startswith(self._inside):
            self.elsewhere += 1
            self.first_elsewhere = self.first_elsewhere or name
        is_large = can_be_too_large(name, size)
        if name not in self._problems and (len(self._problems) < _BEGINS_READ or is_large):
            file = self._folder / name
            problem = self._look_into(name)
            if problem is None and is_large:
                look = look_into(file)
                problem = look.problem
                self.several += look.has_several
                self.first_several = self.first_several or (name if look.has_several else "")
            self._keep(name, place, problem)
        elif name not in self._problems:
            self._others.setdefault(name, _Other(place)).records += 1
        return self._problems.get(name) is None

    def look_into_others(self, seconds: float) -> int:
        """Look into images that were only looked for, spread over all of them, for as long as there is time.

        Returns:
            Number of records of which `can_use` said that it can, and whose image cannot be used.
        """
        end = time.perf_counter() + seconds
        problems = {}
        for name in random.Random(0).sample(list(self._others), len(self._others)):
            if time.perf_counter() > end:
                break
            problems[name] = self._look_into(name)
        unusable = 0
        for name, other in self._others.items():
            if name in problems:
                self._keep(name, other.place, problems[name])
                unusable += other.records if problems[name] is not None else 0
        return unusable

    def _keep(self, name: str, place: str, problem: str | None) -> None:
        self._problems[name] = problem
        if problem is not None:
            self.unusable.append((f"{name} ({place})", f"it {problem}"))

    def _look_into(self, name: str) -> str | None:
        """Return why a file is not an image, as far as its first bytes show; `None` if it is."""
        try:
            with (self._folder / name).open("rb") as file:
                begin = file.read(BEGIN)
                file.seek(0)
                turned = is_turned(file)
        except OSError as problem:
            return f"cannot be read: {problem.strerror}"
        if not begin:
            return "is empty"
        self.turned += turned
        self.first_turned = self.first_turned or (name if turned else "")
        if is_pointer(begin):
            return POINTER
        return None if image_format(begin) else "is of no known image format"


def _size_of(path: str) -> int | None:
    """Return the bytes of a file; `None` if there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 asked for every image
    except (OSError, ValueError):  # a name too long, or a folder without search permission
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
