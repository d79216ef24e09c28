"""Checks data files of conversations, record by record, on all cores, in memory that does not grow with the files."""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError, path_is
from neva_recipes.data_tools._batches import Batch, batches_of, record_at
from neva_recipes.data_tools._checking import Checking, shown_id
from neva_recipes.data_tools._processes import Result, checked_batches, cores
from neva_recipes.data_tools.report import LISTED, FileReport, Report
from neva_recipes.data_tools.settings import Finding, Settings
from neva_recipes.prompts.missing_pictures import lost_image
from neva_recipes.prompts.samples import image_name
from neva_recipes.sources.content import is_made, open_content

__all__ = ["Progress", "check_files", "require_content"]

_SMALL = 4 * 2**20
"""Bytes of files up to which one process is faster than several, which take half a second to start."""


class Progress(NamedTuple):
    """How far a check is.

    Attributes:
        samples: Samples that were checked.
        share: The share of the bytes of all files that was read; of compressed files the last whole one.
        findings: What was found so far.
    """

    samples: int
    share: float
    findings: int


def check_files(paths: Sequence[Path], settings: Settings, tell: Callable[[Progress], None]) -> Report:
    """Check files.

    Args:
        paths: JSON arrays, or JSON lines.
        settings: How they are checked.
        tell: Called again and again with how far the check is.

    Raises:
        DataError: A file cannot be read, or does not have the form of a data file; the message names the place.
        RunError: A process was killed.
    """
    for path in paths:
        require_content(path)
    Checking(settings)  # refuses a tokenizer before processes start
    sizes = [path.stat().st_size for path in paths]
    is_small = sum(sizes) <= _SMALL and not settings.decodes
    gathering = _Gathering(paths, sizes, settings, tell)
    batches = (batch for file, path in enumerate(paths) for batch in batches_of(file, path))
    for result in checked_batches(batches, settings, 1 if is_small else cores()):
        gathering.add(result)
    gathering.finish()
    return Report(settings, gathering.files)


def require_content(path: Path) -> None:
    """Check that a data file has content that may be text.

    Raises:
        DataError: It cannot be read, is empty, or binary.
    """
    if path_is(path) and not path_is(path, Path.is_file):
        kind = "a folder" if path_is(path, Path.is_dir) else "no file"
        raise DataError(f"{path}: is {kind}, expected a data file, .json or .jsonl")
    with open_content(path) as file:
        begin = file.peek(1)[:4096] if hasattr(file, "peek") else file.read(4096)
    if not begin.strip():
        raise DataError(f"{path}: is empty")
    if b"\0" in begin:
        raise DataError(f"{path}: is not text, but binary: expected a data file, .json or .jsonl")


class _Gathering:
    """Puts together what was found in batches, with the keys of all samples, in few bytes for each."""

    def __init__(
        self, paths: Sequence[Path], sizes: Sequence[int], settings: Settings, tell: Callable[[Progress], None]
    ) -> None:
        self.files = [FileReport(path) for path in paths]
        self._sizes, self._settings, self._tell = sizes, settings, tell
        self._ids, self._contents = array("Q"), array("Q")
        self._offsets, self._lengths = array("Q"), array("Q")
        self._begins: list[int] = []
        self._lines: list[int] = []
        self._findings = 0

    def add(self, result: Result) -> None:
        """Add what was found in the next batch."""
        batch, checked = result
        if batch.first == 0:
            self._begins.append(len(self._ids))
            self._lines.append(0)
        file = self.files[batch.file]
        for finding in checked.findings:
            file.add(finding if finding.line is None else finding._replace(line=finding.line + self._lines[-1] + 1))
        file.counts.add(checked.counts)
        file.endings += checked.endings
        self._lines[-1] += checked.newlines
        self._findings += len(checked.findings)
        self._ids.extend(checked.ids)
        self._contents.extend(checked.contents)
        self._offsets.extend(batch.offsets)
        self._lengths.extend(batch.lengths)
        if not file.lost and "image-missing" in file.found:
            file.lost = self._lost(batch, file.found["image-missing"].listed[0].number)
        done = sum(self._sizes[: batch.file]) + (batch.end if batch.records is None else 0)
        self._tell(Progress(len(self._ids), done / sum(self._sizes), self._findings))

    def _lost(self, batch: Batch, number: int) -> str:
        """Return why the image of a sample of a batch is missing, and what to do; empty if unknown."""
        folder = self._settings.image_folder
        if folder is None or number < batch.first or batch.records is not None:
            return ""
        place = number - batch.first
        name = image_name(record_at(batch.path, batch.offsets[place], batch.lengths[place]))
        lost = lost_image(folder, name or "", "--image-folder", batch.path.parent)
        return "" if lost is None else f"{lost.reason}; {lost.remedy}"

    def finish(self) -> None:
        """Add the samples that are there before, and leave out lines in files of one line, where they tell nothing."""
        for file, lines in zip(self.files, self._lines, strict=True):
            if not lines and file.counts.samples > 1:
                file.leave_out_lines()
        self._tell_of_duplicates()

    def _tell_of_duplicates(self) -> None:
        for kind, what, keys in (
            ("duplicate-id", "the id is that", self._ids),
            ("duplicate-content", "image and turns are those", self._contents),
        ):
            for told, (place, first) in enumerate(_doubles(keys)):
                file, other = self._file_of(place), self._file_of(first)
                within = "" if file == other else f" of {self.files[other].path}"
                said = f"{what} of sample {first - self._begins[other]}{within}"
                identity = self._id_at(file, place) if told < LISTED else ""
                self.files[file].add(Finding(kind, place - self._begins[file], said, identity))

    def _file_of(self, place: int) -> int:
        return bisect_right(self._begins, place) - 1

    def _id_at(self, file: int, place: int) -> str:
        path = self.files[file].path
        if is_made(path):
            return ""
        return shown_id(record_at(path, self._offsets[place], self._lengths[place]))


def _doubles(keys: "array[int]") -> Iterator[tuple[int, int]]:
    """Yield the place of each key that is there before, and that of the first; 0 is no key."""
    ordered = sorted(keys)
    double = {one for one, other in pairwise(ordered) if one == other and one}
    del ordered
    first: dict[int, int] = {}
    for place, key in enumerate(keys):
        if key in double and first.setdefault(key, place) != place:
            yield place, first[key]
