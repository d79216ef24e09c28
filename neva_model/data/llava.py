"""Conversations about images in LLaVA's JSON or JSONL format, read one sample at a time."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neva_model.data._cache import build_once
from neva_model.data.encoding import encode_conversation
from neva_model.data.images import ImageProcessor, read_image
from neva_model.data.sample import BadSample, Sample
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import DataError, LlavaDataConfig, VisionConfig
from neva_recipes.prompts.conversation import parse_conversation
from neva_recipes.prompts.encoding import check_template
from neva_recipes.prompts.records import scan_samples
from neva_recipes.prompts.templates import get_template

__all__ = ["LlavaDataset", "SampleIndex"]

_ENTRY = np.dtype([("offset", "<i8"), ("length", "<i8"), ("words", "<i4"), ("has_image", "?")])


class SampleIndex:
    """Where each sample of a data file lies, and the little that the order of samples depends on.

    Attributes:
        words: Words of each sample's turns, LLaVA's cheap stand-in for its length. [samples]
        has_image: Whether each sample names an image. [samples]
    """

    def __init__(self, path: Path, cache_folder: Path) -> None:
        """Index a data file, or load the index another process has made.

        Args:
            path: The data file: an array of samples, or with the ending .jsonl one sample a line.
            cache_folder: Where the index is kept.

        Raises:
            DataError: The file cannot be read, is not of that form, or holds no sample; with the place.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        sources = ("llava", str(path.resolve()), str(status.st_size), str(status.st_mtime_ns))
        index = build_once(cache_folder, sources, ".index.npy", lambda target: _write_index(path, target))
        self._entries: NDArray[Any] = np.load(index, mmap_mode="r")
        self._path = path
        self.words: NDArray[np.int32] = np.array(self._entries["words"])
        self.has_image: NDArray[np.bool_] = np.array(self._entries["has_image"])

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, position: int) -> dict[str, Any]:
        """Return the record of one sample.

        Raises:
            DataError: The file has changed since it was indexed.
        """
        entry = self._entries[position]
        try:
            with self._path.open("rb") as file:
                data = os.pread(file.fileno(), int(entry["length"]), int(entry["offset"]))
            record = json.loads(data)
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path}: sample {position} cannot be read any more: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f"{self._path}: sample {position} has changed while in use")
        return record


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _write_index(path: Path, target: Path) -> None:
    entries = np.fromiter(
        (
            (offset, length, _count_words(record), record.get("image") is not None)
            for offset, length, record in scan_samples(path)
        ),
        dtype=_ENTRY,
    )
    if not len(entries):
        raise DataError(f"{path}: holds no sample")
    with target.open("wb") as file:
        np.save(file, entries)


def _count_words(record: dict[str, Any]) -> int:
    turns = record.get("conversations")
    values = [turn.get("value") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    return sum(len(value.split()) for value in values if isinstance(value, str))


class LlavaDataset:
    """Samples of a LLaVA data file, tokenized and decoded when they are asked for.

    Attributes:
        data_path: The file, for messages.
        has_image: Whether each sample names an image. [samples]
        lengths: Estimated length of each sample in words. [samples]
    """

    def __init__(
        self, data: LlavaDataConfig, data_path: str, vision: VisionConfig, tokenizer: Tokenizer, cache_folder: Path
    ) -> None:
        """Index the file.

        Args:
            data: Template, image folder and lengths.
            data_path: The training or validation file.
            vision: What the images are for.
            tokenizer: The model's tokenizer.
            cache_folder: Where the index is kept.

        Raises:
            DataError: The file cannot be used, or the tokenizer lacks a special token of the template.
        """
        self.data_path = data_path
        self._index = SampleIndex(Path(data_path), cache_folder)
        self.has_image = self._index.has_image
        self.lengths = self._index.words
        self._image_folder = Path(data.image_folder) if data.image_folder else Path(data_path).parent
        self._sequence_length = data.sequence_length
        self._template = get_template(data.conv_template)
        self._tokens_per_image = vision.tokens_per_image
        self._processor = ImageProcessor(vision, data.image_aspect_ratio)
        self._tokenizer = tokenizer
        check_template(self._template, tokenizer)

    def __len__(self) -> int:
        return len(self._index)

    def load(self, position: int) -> Sample:
        """Return one sample.

        Raises:
            BadSample: It cannot be used; the error names the file, the position and the sample's id.
            DataError: The file has changed since it was indexed.
        """
        record = self._index.read(position)
        try:
            return self._to_sample(record)
        except DataError as error:
            raise BadSample(self.data_path, position, record.get("id"), str(error)) from None

    def _to_sample(self, record: dict[str, Any]) -> Sample:
        name = record.get("image")
        if name is not None and (not isinstance(name, str) or not name):
            raise DataError(f"image is {name!r:.60}, expected the name of one image file")
        turns = parse_conversation(record.get("conversations"), has_image=name is not None)
        encoded = encode_conversation(turns, self._template, self._tokenizer, tokens_per_image=self._tokens_per_image)
        sample = encoded.to_sample(self._sequence_length)
        if name is None:
            return sample
        path = self._image_folder / name
        try:
            image = self._processor(read_image(path))
        except DataError as error:
            hint = "" if _is_there(path) else " (image names are relative to data.image_folder)"
            raise DataError(f"{error}{hint}") from None
        return Sample(sample.tokens, sample.labels, image, sample.truncated)
