"""Conversations about images in LLaVA's JSON or JSONL format, read one sample at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neva_model.data.encoding import encode_conversation
from neva_model.data.images.reading import ImageProcessor, read_image
from neva_model.data.index import FINE, SampleIndex, SampleRules, check_record, require_image
from neva_model.data.sample import BadSample, Sample
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import DataError, LlavaDataConfig, VisionConfig, image_folder_of
from neva_recipes.families import image_length
from neva_recipes.prompts.conversation import NothingToLearn
from neva_recipes.prompts.encoding import check_template
from neva_recipes.prompts.samples import image_name, read_sample
from neva_recipes.prompts.templates import get_template

__all__ = ["LlavaDataset"]


class LlavaDataset:
    """Samples of a LLaVA data file, tokenized and decoded when they are requested.

    Attributes:
        data_path: The file, for messages.
        has_image: Whether each sample names an image. [samples]
        lengths: Estimated length of each sample in words. [samples]
        keys: Keys of all samples, which identify them in other files; see `SampleIndex`. [keys]
        key_ends: Where the keys of each sample end. [samples]
        image_folder: Folder that image names are relative to.
    """

    def __init__(
        self, data: LlavaDataConfig, data_path: str, vision: VisionConfig, tokenizer: Tokenizer, cache_folder: Path
    ) -> None:
        """Index the file and check all its records.

        Args:
            data: Template, image folder and lengths.
            data_path: The training or validation file.
            vision: The vision tower that the images are for.
            tokenizer: The model's tokenizer.
            cache_folder: Folder for the index.

        Raises:
            DataError: The file cannot be used, or the tokenizer lacks a special token of the template.
        """
        self.data_path = data_path
        self._template = get_template(data.conv_template)
        self._rules = SampleRules(self._template, image_folder_of(data, Path(data_path)))
        self._index = SampleIndex(Path(data_path), cache_folder, self._rules)
        self.has_image = self._index.has_image
        self.lengths = self._index.words
        self.keys, self.key_ends = self._index.keys, self._index.key_ends
        self.image_folder = self._rules.image_folder
        self._sequence_length = data.sequence_length
        self._tokens_per_image = image_length(vision)
        self._processor = ImageProcessor(vision, data.image_aspect_ratio)
        self._tokenizer = tokenizer
        check_template(self._template, tokenizer)

    def __len__(self) -> int:
        return len(self._index)

    def unusable(self) -> Iterator[BadSample]:
        """Yield every sample that cannot be used, as far as the index knows, which has encoded none.

        Samples that have become usable since the index was made, such as those with a missing image, are left out.

        Raises:
            DataError: The file has changed since it was indexed.
        """
        for position in np.flatnonzero(self._index.states != FINE).tolist():
            record = self._index.read(position)
            try:
                check_record(record, self._rules)
            except DataError as error:
                yield self._bad(position, record, error)

    def image_of(self, position: int) -> str | None:
        """Return the name of a sample's image file; `None` without an image.

        Raises:
            DataError: The file has changed since it was indexed.
        """
        return image_name(self._index.read(position))

    def load(self, position: int) -> Sample:
        """Return one sample.

        Raises:
            BadSample: The sample cannot be used; the message names the file, the position and the sample's id.
            DataError: The file has changed since it was indexed.
        """
        record = self._index.read(position)
        try:
            return self._to_sample(record)
        except DataError as error:
            raise self._bad(position, record, error) from None

    def _bad(self, position: int, record: dict[str, object], error: DataError) -> BadSample:
        teaches_nothing = isinstance(error, NothingToLearn)
        return BadSample(self.data_path, position, record.get("id"), str(error), teaches_nothing=teaches_nothing)

    def _to_sample(self, record: dict[str, object]) -> Sample:
        turns, system, name = read_sample(record, self._template)
        encoded = encode_conversation(
            turns, self._template, self._tokenizer, tokens_per_image=self._tokens_per_image, system=system
        )
        sample = encoded.to_sample(self._sequence_length)
        if name is None:
            return sample
        image = self._processor(read_image(require_image(self._rules.image_folder, name)))
        return Sample(sample.tokens, sample.labels, image, sample.truncated)
