"""Looks for the samples of some data files among training samples: the same words, and the same image.

Files may differ in every byte: an array and JSON lines, a part, another order, the first turns of longer conversations,
images under other names. The plan, the worker and an evaluation all look here, each for as long as it has time.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from neva_recipes.config import (
    DataError,
    LlavaDataConfig,
    Recipe,
    RecipeError,
    expand_path,
    image_folder_of,
    listed_paths,
)
from neva_recipes.plan.findings import field_value
from neva_recipes.plan.trained._image_files import ImageFiles
from neva_recipes.plan.trained.same_files import TRAINING, trainings_of
from neva_recipes.plan.trained.trainings import RecipesOf
from neva_recipes.prompts.conversation import Conversation
from neva_recipes.prompts.identity import conversation_keys, text_words
from neva_recipes.prompts.samples import read_sample
from neva_recipes.prompts.templates import Template, get_template
from neva_recipes.sources.indexed import is_indexed
from neva_recipes.sources.records import scan_samples, scan_texts

__all__ = [
    "DataFile",
    "KeyedSample",
    "SoughtSamples",
    "data_files",
    "files_by_training",
    "keyed_sample",
    "keyed_samples",
]

_TOGETHER = 256
"""Number of training samples read between two looks at the clock."""


class DataFile(NamedTuple):
    """A data file, and how its samples are read.

    Attributes:
        path: The file.
        template: The template of its conversations; `None` for plain text.
        image_folder: Folder that image names are relative to.
    """

    path: Path
    template: Template | None
    image_folder: Path


class KeyedSample(NamedTuple):
    """A sample as far as it is compared.

    Attributes:
        keys: Its key, and those of its parts, as `conversation_keys` returns them.
        image: Name of its image; `None` without an image.
    """

    keys: Sequence[int]
    image: str | None


class SoughtSamples:
    """Samples that are looked for among training samples.

    Attributes:
        count: How many there are.
        found: The numbers of those that were found, from 0 in the order in which they were added.
    """

    def __init__(self, deadline: float) -> None:
        """Start without a sample.

        Args:
            deadline: When to stop reading files and comparing images, as `time.monotonic` counts.
        """
        self.count = 0
        self.found: set[int] = set()
        self._deadline = deadline
        self._images = ImageFiles(deadline)
        self._groups: dict[int, _Group] = {}

    @property
    def is_cut(self) -> bool:
        """Whether images were not compared because the deadline had passed."""
        return self._images.is_cut

    def add(self, sample: KeyedSample, image_folder: Path) -> None:
        """Add a sample to look for."""
        group = self._groups.setdefault(sample.keys[0], _Group())
        group.numbers.setdefault(_path(image_folder, sample.image), []).append(self.count)
        self.count += 1

    def look_at(self, trained: KeyedSample, image_folder: Path) -> None:
        """Find the samples that a training sample, or a part of one, is equal to."""
        for key in trained.keys:
            if (group := self._groups.get(key)) is not None:
                self.found.update(group.take(_path(image_folder, trained.image), self._images))
                if not group.numbers:
                    del self._groups[key]

    def has_time(self) -> bool:
        """Return whether the deadline has not passed."""
        return time.monotonic() <= self._deadline

    def look_through(self, file: DataFile, key: Callable[[str], int]) -> bool:
        """Look at every sample of a training file; return whether there was time for all of it.

        Args:
            file: The training file. It cannot be compared completely if it is not here or not readable.
            key: Returns the key of a text, as the samples to look for have been keyed.
        """
        try:
            for number, sample in keyed_samples(file, key):
                self.look_at(sample, file.image_folder)
                if not number % _TOGETHER and not self.has_time():
                    return False
        except (DataError, RecipeError):  # such as a package that reads the file and is gone
            return False
        return not self.is_cut


class _Group:
    """Sought samples with the same words.

    Attributes:
        numbers: Their numbers, by the paths of their images.
    """

    def __init__(self) -> None:
        self.numbers: dict[str | None, list[int]] = {}
        self._by_size: dict[int, list[str]] | None = None
        self._by_content: dict[int, dict[bytes, list[str]]] = {}

    def take(self, image: str | None, files: ImageFiles) -> list[int]:
        """Take out the samples that have this image, be it under another name, and return their numbers."""
        taken = self.numbers.pop(image, [])
        if image is not None and self.numbers:
            for other in self._copies(image, files):
                taken += self.numbers.pop(other, [])
        return taken

    def _copies(self, image: str, files: ImageFiles) -> list[str]:
        if self._by_size is None:
            self._by_size = _grouped((path for path in self.numbers if path is not None), files.size)
        size = files.size(image)
        if not size or size not in self._by_size:  # an empty file is no image
            return []
        if size not in self._by_content:
            self._by_content[size] = _grouped(self._by_size[size], files.content)
        content = files.content(image)
        return [] if content is None else self._by_content[size].get(content, [])


def _grouped(paths: Iterable[str], key: Callable[[str], object]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = {}
    for path in paths:
        groups.setdefault(key(path), []).append(path)
    return groups


def _path(folder: Path, name: str | None) -> str | None:
    return None if name is None else os.path.abspath(os.path.join(folder, name))  # noqa: PTH100, PTH118 ten times as fast


def data_files(recipe: Recipe, field: str, *, indexed: bool = False) -> list[DataFile]:
    """Return the data files that a field of a recipe names, whether they are here or not.

    Args:
        recipe: The recipe.
        field: The field.
        indexed: Whether indexed datasets are among them, which hold tokens, and no text to compare.
    """
    data = recipe.data
    paths = [expand_path(name) for name in listed_paths(field_value(recipe, field))]
    if not isinstance(data, LlavaDataConfig):
        return [DataFile(path, None, path.parent) for path in paths if indexed or not is_indexed(path)]
    return [DataFile(path, get_template(data.conv_template), image_folder_of(data, path)) for path in paths]


def files_by_training(
    recipe: Recipe, recipes_of: RecipesOf, *, indexed: bool = False
) -> dict[tuple[str, str | None], list[DataFile]]:
    """Return the data files that the weights of a recipe are trained on, by training; each file at the first only.

    A training is named as `trainings_of` does: the field that says so, and the earlier run, or `None` for the recipe's
    own training, which comes first.

    Args:
        recipe: The recipe.
        recipes_of: Returns the recipes of the runs that its weights come from.
        indexed: As for `data_files`.
    """
    first: dict[DataFile, tuple[str, str | None]] = {}
    for field, source, each in trainings_of(recipe, recipes_of):
        for file in data_files(each, TRAINING, indexed=indexed):
            first.setdefault(file, (field, source))
    return {training: [file for file in first if first[file] == training] for training in dict.fromkeys(first.values())}


def keyed_samples(file: DataFile, key: Callable[[str], int]) -> Iterator[tuple[int, KeyedSample]]:
    """Yield the samples of a file that can be trained on, each with its number in the file, from 0.

    Args:
        file: The file.
        key: Returns the key of a text: `key_of`, or `hash` for keys that are compared in this process only.

    Raises:
        DataError: The file cannot be read, or does not have the expected form.
    """
    if file.template is None:
        for number, (_, text) in enumerate(scan_texts(file.path)):
            yield number, KeyedSample((key(text_words(text)),), None)
        return
    for number, (_, _, record) in enumerate(scan_samples(file.path)):
        try:
            conversation = read_sample(record, file.template)
        except DataError:
            continue  # no model can have been trained on it
        yield number, keyed_sample(conversation, key)


def keyed_sample(conversation: Conversation, key: Callable[[str], int]) -> KeyedSample:
    """Return a conversation as far as it is compared; `key` is that of `keyed_samples`."""
    return KeyedSample(conversation_keys(conversation, key), conversation.image)
