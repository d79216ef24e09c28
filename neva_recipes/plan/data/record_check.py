"""Check as many records of a data file as time allows, as training will check all of them."""

import contextlib
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from neva_recipes.config import DataError, how_many
from neva_recipes.plan.data._images import Images
from neva_recipes.plan.data.file_states import FileState, file_state
from neva_recipes.plan.data.walk import Walk
from neva_recipes.plan.trained.sought_samples import KeyedSample, keyed_sample
from neva_recipes.prompts.conversation import Conversation, NothingToLearn
from neva_recipes.prompts.identity import text_words
from neva_recipes.prompts.missing_pictures import Lost
from neva_recipes.prompts.samples import field_of_image, names_image, read_sample
from neva_recipes.prompts.templates import Template
from neva_recipes.sources.content import is_made
from neva_recipes.sources.records import scan_texts

__all__ = ["CheckedDocuments", "CheckedRecords", "Requirement", "check_documents", "check_records", "keyed_records"]

_SECONDS = 0.25
"""Time for the files of a field; there are two such fields, and a dry run should answer at once."""

_HEADERS_SECONDS = 0.2
"""Further time for the headers of their images: a JPEG file takes 60 microseconds on a local disk."""

_SMALL = 4 * 2**20
"""Bytes of the files of a field up to which every record is read, whatever time it takes."""

_ENCODED = 2**19
"""Bytes of prompts that are encoded for the files of a field, if a check counts tokens."""

_EMPTY_CELLS = frozenset(("nan", "NaN"))
"""What str and JSON make of the empty cells of pandas. Other words, such as "none" and "n/a", are answers too."""

Requirement = Callable[[Conversation], int]
"""Raises `DataError` for a conversation that cannot be used; returns how many bytes it encoded to find out."""


@dataclass(frozen=True)
class CheckedRecords:
    """The results for the records of a file.

    Attributes:
        seen: Number of records checked.
        total: Number of records of the file; an estimate if not all were checked.
        is_whole: Whether all were checked.
        bad: Number of records that cannot be used.
        first_bad: The first of these, and what is wrong with it.
        silent: Number of records that teach nothing.
        first_silent: The first of these, and why.
        empty_cells: Records with an answer that is only the word that pandas makes of an empty cell.
        broken_off: Records with an answer that holds the text which ends an answer in the template.
        images: Number of images looked for.
        different: Number of different ones among those that exist.
        missing: Names of the missing images, each with its sample.
        lost: Why the first of them is missing, and what to do; `None` if unknown.
        elsewhere: Number of images that exist, but outside of the folder, by an absolute name.
        first_elsewhere: The first of these.
        unusable: Names of the images that exist but cannot be used, each with its sample, and the reason.
        looked_into: Number of images whose first bytes were read.
        turned: Number of those with an EXIF rotation.
        first_turned: The first of these.
        several: Number of those with several pages or frames.
        first_several: The first of these.
        samples: Number of records without an image, and with one; records whose image was not looked for don't count.
        usable: Number of usable records of each kind, as far as is known.
        image_field: A field that holds the name of an image, but is not the one that training reads; `None` if none.
        misnamed: Number of records whose image is only named in such a field.
        keyed: Each readable sample, with keys of this process; empty if keys were not asked for.
    """

    seen: int
    total: int
    is_whole: bool
    bad: int
    first_bad: str
    silent: int
    first_silent: str
    empty_cells: tuple[str, ...]
    broken_off: tuple[str, ...]
    images: int
    different: int
    missing: tuple[str, ...]
    lost: Lost | None
    elsewhere: int
    first_elsewhere: str
    unusable: tuple[tuple[str, str], ...]
    looked_into: int
    turned: int
    first_turned: str
    several: int
    first_several: str
    samples: tuple[int, int]
    usable: tuple[int, int]
    image_field: str | None
    misnamed: int
    keyed: tuple[KeyedSample, ...]

    @property
    def found_images(self) -> int:
        """Number of images that are where they were looked for."""
        return self.images - len(self.missing)

    def extent(self) -> str:
        """Return as text how much of the file was checked."""
        if self.is_whole:
            return {0: "no record", 1: "its one record"}.get(self.seen, f"all {self.seen:,} records")
        return f"{self.seen:,} of about {self.total:,} records"

    def headers(self) -> str:
        """Return as text how many of the images of the records were looked into; empty if there are none."""
        if not self.looked_into:
            return ""
        part = "" if self.looked_into == self.different else f"{self.looked_into:,} of "
        return f" and the headers of {part}{how_many(self.different, 'image')}"

    def missing_images(self, folder: Path) -> str:
        """Return as text which images are missing in their folder; at least one must be."""
        missing = len(self.missing)
        reason = "" if self.lost is None else f": {self.lost.reason}"
        first = f"{self.missing[0]}{reason}"
        return f"{missing:,} of {self.images:,} images looked for are not in {folder}, the first is {first}"

    def unusable_images(self) -> str:
        """Return as text which existing images cannot be used; at least one must be unusable."""
        image, reason = self.unusable[0]
        return f"{len(self.unusable):,} of the images looked at cannot be used, the first is {image}: {reason}"


@dataclass(frozen=True)
class CheckedDocuments:
    """The results for the documents of a text file.

    Attributes:
        found: Whether it has a document.
        keys: The key of each document read; empty if keys were not asked for.
        is_whole: Whether all were read.
    """

    found: bool
    keys: Sequence[int]
    is_whole: bool


def check_records(
    path: Path,
    template: Template,
    image_folder: Path,
    share: float = 1.0,
    require: Requirement | None = None,
    *,
    keyed: bool = False,
    setting: str = "data.image_folder",
) -> CheckedRecords:
    """Check the records of a file: all of a small file, otherwise as many as time allows.

    The records are spread over the file, or from its beginning if its content is made. Results are cached while the
    file stays the same.

    Args:
        path: A JSON array, or JSON lines.
        template: The template of their prompts.
        image_folder: Folder that image names are relative to; images are looked for if it exists.
        share: The file's share of the bytes of all its field's files, and so of their time.
        require: A further requirement, checked until a record is bad; equal requirements share cached results.
        keyed: Whether to return the keys of the samples.
        setting: The setting that names the folder, for what is said of missing images.

    Raises:
        DataError: The file cannot be read, or does not have this form.
    """
    return _check(file_state(path), template, image_folder, share, require, keyed, setting)


def check_documents(path: Path, share: float = 1.0, *, keyed: bool = False) -> CheckedDocuments:
    """Read the documents of a text file: all of a small file, otherwise from the beginning as many as time allows.

    Results are cached while the file stays the same.

    Args:
        path: JSON lines, or plain text.
        share: The file's share of the bytes of all its field's files, and so of their time.
        keyed: Whether to return the keys of the documents.

    Raises:
        DataError: The file cannot be read, or does not have the expected form; the message names the place.
    """
    return _check_documents(file_state(path), share, keyed)


def keyed_records(path: Path, template: Template, share: float = 1.0) -> tuple[Sequence[KeyedSample], bool]:
    """Return the readable samples of a file, with keys of this process, and whether these are all.

    As many records are read as `check_records` reads, but no image is looked for. Results are cached as there.

    Raises:
        DataError: The file cannot be read, or does not have the expected form.
    """
    return _keyed(file_state(path), template, share)


@lru_cache(maxsize=256)
def _keyed(state: FileState, template: Template, share: float) -> tuple[Sequence[KeyedSample], bool]:
    walk = Walk(state.path, state.size, time.perf_counter() + _SECONDS * share, _SMALL * share)
    keyed: list[KeyedSample] = []
    for _, record in walk.records():
        with contextlib.suppress(DataError):  # no model can have been trained on it
            keyed.append(keyed_sample(read_sample(record, template), hash))
    return keyed, walk.is_whole


@lru_cache(maxsize=256)
def _check_documents(state: FileState, share: float, keyed: bool) -> CheckedDocuments:
    deadline = time.perf_counter() + _SECONDS * share
    is_small = not is_made(state.path) and state.size <= _SMALL * share
    found, keys = False, array("q")
    for _, text in scan_texts(state.path):
        found = True
        if keyed:
            keys.append(hash(text_words(text)))
        if not is_small and time.perf_counter() > deadline:
            return CheckedDocuments(found, keys, is_whole=False)
    return CheckedDocuments(found, keys, is_whole=True)


def _hold(answers: list[str], end: str | None) -> bool:
    return end is not None and any(end in answer.strip() for answer in answers)


@lru_cache(maxsize=256)
def _check(
    state: FileState,
    template: Template,
    image_folder: Path,
    share: float,
    require: Requirement | None,
    keyed: bool,
    setting: str,
) -> CheckedRecords:
    deadline = time.perf_counter() + _SECONDS * share
    bad, silent, cells, broken_off = list[str](), list[str](), list[str](), list[str]()
    samples, usable = [0, 0], [0, 0]
    keys: list[KeyedSample] = []
    image_field: str | None = None
    misnamed = 0
    unencoded = _ENCODED * share
    images = Images(image_folder, deadline, state.path.parent)
    walk = Walk(state.path, state.size, deadline, _SMALL * share)
    for place, record in walk.records():
        kind = names_image(record)
        other_field = None if kind else field_of_image(record)
        misnamed += other_field is not None
        image_field = image_field or other_field
        try:
            conversation = read_sample(record, template)
            answers = [turn.text for turn in conversation.turns[1::2]]
            cells += [place] if _EMPTY_CELLS.intersection(answers) else []
            broken_off += [place] if _hold(answers, template.stop_text) else []
            if keyed:
                keys.append(keyed_sample(conversation, hash))
            if require is not None and unencoded > 0 and not bad:  # the first bad record is enough
                unencoded -= require(conversation)
            is_usable = conversation.image is None or images.can_use(conversation.image, place)
        except NothingToLearn as problem:
            silent.append(f"{place}: {problem}")
            is_usable = False
        except DataError as problem:
            bad.append(f"{place}: {problem}")
            is_usable = False
        if is_usable is not None:
            samples[kind] += 1
            usable[kind] += is_usable
    usable[True] -= images.look_into_others(_HEADERS_SECONDS * share)
    return CheckedRecords(
        walk.seen, walk.estimate(), walk.is_whole, len(bad), bad[0] if bad else "", len(silent),
        silent[0] if silent else "", tuple(cells), tuple(broken_off), images.looked_for, images.different,
        tuple(images.missing), images.lost(setting), images.elsewhere, images.first_elsewhere,
        tuple(images.unusable), images.looked_into, images.turned, images.first_turned, images.several,
        images.first_several, (samples[0], samples[1]), (usable[0], usable[1]), image_field, misnamed, tuple(keys),
    )  # fmt: skip
