"""An index of a data file, made once before training: where every sample is, and whether it can be used."""

import json
import os
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neva_model.data._cache import build_once, data_file_state
from neva_model.data._unpacked import plain_file
from neva_model.data.images.reading import read_image
from neva_model.data.images.there import ImageNames
from neva_recipes.config import DataError, PlainTable, how_many
from neva_recipes.prompts.conversation import NothingToLearn
from neva_recipes.prompts.identity import conversation_keys, key_of
from neva_recipes.prompts.missing_pictures import missing_named_image
from neva_recipes.prompts.pictures import header_problem, looks_texts
from neva_recipes.prompts.samples import count_words, image_name, names_image, read_sample
from neva_recipes.prompts.templates import Template
from neva_recipes.run_directory.told import was_told
from neva_recipes.sources.records import scan_samples

__all__ = ["BAD", "FINE", "TEACHES_NOTHING", "SampleIndex", "SampleRules", "check_record", "require_image"]

FINE, BAD, TEACHES_NOTHING = 0, 1, 2
"""State of a sample, as far as is known without encoding its text; not every image has been decoded."""

_ENTRY = np.dtype(
    [("offset", "<i8"), ("length", "<i8"), ("words", "<i4"), ("has_image", "?"), ("state", "u1"), ("keys", "<i4")]
)

_KEY = np.dtype("<u8")

_VERSION = "samples with keys of their parts, images decoded"
"""Names what an index holds and what its samples were checked for, damaged pictures included. An index of
another version is not read; it must change with `_ENTRY` and with any rule that makes a sample bad."""

_SECONDS_BETWEEN_LINES = 10


class SampleRules(NamedTuple):
    """The rules that samples are checked against.

    Attributes:
        template: The template of their prompts.
        image_folder: Folder that image names are relative to.
    """

    template: Template
    image_folder: Path


class SampleIndex:
    """Where each sample of a data file is, and the few facts that the order of samples depends on.

    Attributes:
        words: Words of each sample's turns, LLaVA's cheap estimate of its length. [samples]
        has_image: Whether each sample names an image. [samples]
        states: FINE, BAD or TEACHES_NOTHING, at the time when the index was made. [samples]
        keys: Keys of all samples, one after the other, each as `conversation_keys` returns them. They identify a sample
            in other files; a sample that cannot be read has none. [keys]
        key_ends: Where the keys of each sample end. [samples]
    """

    def __init__(self, path: Path, cache_folder: Path, rules: SampleRules) -> None:
        """Index a data file, or load the index that another process has made.

        Args:
            path: The data file: an array of samples, or one sample per line if it ends in .jsonl; may be compressed.
            cache_folder: Folder for the index and for the unpacked copy of a compressed file.
            rules: The rules that every sample is checked against.

        Raises:
            DataError: The file cannot be read, does not have this form, or holds no sample; the message names the
                place.
            RunError: The folder cannot be written to, or is full.
        """
        state = data_file_state(path)
        file = plain_file(path, cache_folder, state)
        sources = (_VERSION, *state, rules.template.name, str(rules.image_folder.absolute()))
        index = build_once(cache_folder, sources, ".index.npy", lambda target: _write_index(path, file, rules, target))
        self._entries: NDArray[Any] = np.load(index, mmap_mode="r")
        self._path, self._file = path, file
        self.words: NDArray[np.int32] = np.array(self._entries["words"])
        self.has_image: NDArray[np.bool_] = np.array(self._entries["has_image"])
        self.states: NDArray[np.uint8] = np.array(self._entries["state"])
        self.key_ends: NDArray[np.int64] = np.cumsum(self._entries["keys"], dtype=np.int64)
        begin = index.stat().st_size - int(self.key_ends[-1]) * _KEY.itemsize
        self.keys: NDArray[np.uint64] = (
            np.memmap(index, dtype=_KEY, mode="r", offset=begin) if self.key_ends[-1] else np.empty(0, dtype=_KEY)
        )

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, position: int) -> PlainTable:
        """Return the record of one sample.

        Raises:
            DataError: The file has changed since it was indexed.
        """
        entry = self._entries[position]
        try:
            with self._file.open("rb") as file:
                data = os.pread(file.fileno(), int(entry["length"]), int(entry["offset"]))
            record = json.loads(data)
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path}: sample {position} cannot be read any more: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f"{self._path}: sample {position} has changed while in use")
        return record


def check_record(record: dict[str, object], rules: SampleRules) -> None:
    """Check a record and its image, as far as possible without encoding its text.

    Raises:
        NothingToLearn: Nothing in it would carry loss.
        DataError: The record cannot be used.
    """
    image = read_sample(record, rules.template).image
    if image is None:
        return
    path = require_image(rules.image_folder, image)
    if problem := header_problem(path):
        raise DataError(f"image file {path} {problem}")
    read_image(path)


def require_image(folder: Path, name: str) -> Path:
    """Return the image file of a sample, given the folder that its name is relative to.

    Raises:
        DataError: The file is missing.
    """
    if problem := missing_named_image(folder, name, "data.image_folder"):
        raise DataError(problem)
    return folder / name


class _Progress:
    """Prints now and then how far a long check has got."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said_at = time.monotonic()

    def tell(self, done: str) -> None:
        if time.monotonic() - self._said_at > _SECONDS_BETWEEN_LINES:
            self._said_at = time.monotonic()
            print(f"checking {self._path}: {done}", flush=True)


def _write_index(path: Path, file: Path, rules: SampleRules, target: Path) -> None:
    names, keys, progress = ImageNames(), array("Q"), _Progress(path)
    entries = np.fromiter(_entries(path, max(1, file.stat().st_size), rules, names, keys, progress), dtype=_ENTRY)
    if not len(entries):
        raise DataError(f"{path}: holds no sample")
    _mark_bad_images(file, rules.image_folder, names, entries, progress)
    if names.decoded < names.whole:
        looked = f"decoded {names.decoded:,} of {how_many(names.whole, 'image')} in the time for it"
        print(f"note: {path}: {looked}; a damaged one among the others shows when it is met", flush=True)
    run_dir = target.parent.parent  # the folder of an index is one of the run directory
    for kind, said in looks_texts(names.turned, names.several, names.looked_into).items():
        if not was_told(run_dir, f"images-{kind}", said):
            print(f"note: {path}: {said}", flush=True)
    with target.open("wb") as index:
        np.save(index, entries)
        np.array(keys, dtype=_KEY).tofile(index)


def _entries(
    path: Path, size: int, rules: SampleRules, names: ImageNames, keys: "array[int]", progress: _Progress
) -> Iterator[tuple[Any, ...]]:
    for position, (offset, length, record) in enumerate(scan_samples(path)):
        state, image, keyed = FINE, None, tuple[int, ...]()
        try:
            conversation = read_sample(record, rules.template)
            image, keyed = conversation.image, conversation_keys(conversation, key_of)
        except NothingToLearn:
            state = TEACHES_NOTHING
        except DataError:
            state = BAD
        if image is not None:
            names.add(position, image)
        keys.extend(keyed)
        yield offset, length, count_words(record), names_image(record), state, len(keyed)
        if not position % 1024:
            progress.tell(f"{position + 1:,} samples so far, {offset / size:.0%} of the file")


def _mark_bad_images(file: Path, folder: Path, names: ImageNames, entries: NDArray[Any], progress: _Progress) -> None:
    """Mark the samples whose image is missing, has too many pixels or is damaged as bad."""
    with file.open("rb") as opened:

        def name_of(position: int) -> str:
            data = os.pread(opened.fileno(), int(entries["length"][position]), int(entries["offset"][position]))
            name = image_name(json.loads(data))
            assert name is not None, "only samples with an image were remembered"
            return name

        unusable = names.unusable(folder, name_of, progress.tell)
        entries["state"][unusable] = BAD
