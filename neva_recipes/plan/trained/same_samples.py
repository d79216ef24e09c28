"""Validation samples and questions that were trained on, in files that are not copies of each other.

Only a part of large files is looked at, so what is counted may be a lower bound.
"""

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError, Recipe, RecipeError, TextDataConfig, how_many, path_is
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.data.file_states import FileState, file_state, shares_of
from neva_recipes.plan.data.record_check import check_documents, check_records, keyed_records
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, known_tokenizer
from neva_recipes.plan.trained.same_files import (
    TRAINING,
    VALIDATION,
    files_trained_on,
    shared_text,
    trainings_of,
    validation_warning,
)
from neva_recipes.plan.trained.sought_samples import DataFile, KeyedSample, SoughtSamples, data_files, files_by_training
from neva_recipes.plan.trained.token_documents import token_keys
from neva_recipes.plan.trained.trainings import RecipesOf
from neva_recipes.prompts.templates import Template
from neva_recipes.sources.indexed import is_indexed

__all__ = ["check_validation_samples", "questions_trained_on"]

_SECONDS = 0.1
"""Time to compare the images of samples with the same words; reading their files takes time of its own."""

_EARLIER = 0.5
"""Share of the time of a field for the training files of all earlier runs together."""

_SHARE = {"sample": 0.01, "text": 0.1}
"""Share of conversations and of texts that may also be training samples without a warning. Large sets hold some
samples twice, and texts repeat short lines."""


class _Look(NamedTuple):
    """What to look at in a data file; equal looks see the same samples.

    Attributes:
        state: The file; `None` if it is not here.
        template: The template of its conversations; `None` for plain text.
        image_folder: Folder that image names are relative to.
        share: The file's share of the time.
        is_checked: Whether the check of the recipe's data files looks at it too.
    """

    state: FileState | None
    template: Template | None
    image_folder: Path
    share: float
    is_checked: bool

    @property
    def is_indexed(self) -> bool:
        """Whether it holds tokens."""
        return self.template is None and self.state is not None and is_indexed(self.state.path)


class _Shared(NamedTuple):
    """How many samples were found among training samples.

    Attributes:
        found: Their number.
        total: The number of samples that were looked for.
        is_lower_bound: Whether training samples or images were not looked at.
        is_whole: Whether every sample was looked for.
        image: Name of the image of the first that was found; `None` if it has none.
    """

    found: int
    total: int
    is_lower_bound: bool
    is_whole: bool
    image: str | None

    def text(self, kind: str, source: str | None = None) -> str:
        """Return as text how many there are; `source` is the earlier run that has trained on them."""
        looked_at = "" if self.is_whole else " looked at"
        samples = f"{how_many(self.total, kind)}{looked_at}"
        return shared_text(self.found, samples, source, at_least=self.is_lower_bound)


def check_validation_samples(recipe: Recipe, recipes_of: RecipesOf) -> Iterator[Found]:
    """Yield a warning if validation samples are also training samples of the recipe, or of a run weights come from.

    Files that are copies of training files are left to `check_validation_files`.
    """
    if recipe.data.validation_data_path is None:
        return
    is_text = isinstance(recipe.data, TextDataConfig)
    trained = files_by_training(recipe, recipes_of, indexed=is_text)
    earlier = _looks([file for (_, source), files in trained.items() if source is not None for file in files], _EARLIER)
    looks = {**earlier, **_looks(trained.get((TRAINING, None), []), is_checked=True)}
    validation = _looks(data_files(recipe, VALIDATION, indexed=is_text), is_checked=True)
    recipes = [each for *_, each in trainings_of(recipe, recipes_of)]
    copies = files_trained_on(recipes, (str(file.path) for file in validation))
    sought = tuple(look for file, look in validation.items() if str(file.path) not in copies)
    kind = "text" if any(look.template is None for look in sought) else "sample"
    for (field, source), files in trained.items():
        own = tuple(looks[file] for file in files)
        by_tokens = is_text and any(look.is_indexed for look in (*own, *sought))
        shared = _compared(own, sought, known_tokenizer(recipe) if by_tokens else None, by_tokens=by_tokens)
        if shared.found > _SHARE[kind] * shared.total:
            yield found(validation_warning(shared.text(kind, source), recipe, field, " there", shared.image))


def questions_trained_on(recipes: Sequence[Recipe], questions: Sequence[DataFile], recipes_of: RecipesOf) -> str:
    """Return as text how many samples of questions a model was trained on; empty if none is known to be.

    Args:
        recipes: The recipes that the model was trained with.
        questions: The files of the questions.
        recipes_of: Returns the recipes of the runs that its weights come from.
    """
    by_training = [files_by_training(recipe, recipes_of) for recipe in recipes]
    trained = list(dict.fromkeys(file for trained in by_training for files in trained.values() for file in files))
    shared = _compared(tuple(_looks(trained).values()), tuple(_looks(questions).values()))
    return shared.text("sample") if shared.found else ""


def _looks(files: Sequence[DataFile], time_share: float = 1.0, *, is_checked: bool = False) -> dict[DataFile, _Look]:
    """Return what to look at in files that together have a share of the time of a field."""
    shares = shares_of(file.path for file in files)
    return {
        file: _Look(_state(file.path), file.template, file.image_folder, time_share * shares[file.path], is_checked)
        for file in files
    }


def _state(path: Path) -> FileState | None:
    return file_state(path) if path_is(path, Path.is_file) else None


@lru_cache(maxsize=256)
def _compared(
    trained: tuple[_Look, ...],
    sought: tuple[_Look, ...],
    tokenizer: LocalTokenizer | None = None,
    *,
    by_tokens: bool = False,
) -> _Shared:
    see = partial(_documents, tokenizer=tokenizer) if by_tokens else _seen
    parts = [(look, *see(look)) for look in trained]
    samples = SoughtSamples(time.monotonic() + _SECONDS)
    is_whole, images = True, list[str | None]()
    for look in sought:
        seen, sees_all = see(look)
        is_whole &= sees_all
        for sample in seen:
            samples.add(sample, look.image_folder)
            images.append(sample.image)
    for look, seen, _ in parts:
        for sample in seen:
            samples.look_at(sample, look.image_folder)
    is_lower_bound = samples.is_cut or not all(sees_all for *_, sees_all in parts)
    image = images[min(samples.found)] if samples.found else None
    return _Shared(len(samples.found), samples.count, is_lower_bound, is_whole, image)


def _documents(look: _Look, tokenizer: LocalTokenizer | None) -> tuple[Sequence[KeyedSample], bool]:
    """Return what `_seen` returns, for documents of text and of tokens that are compared by their tokens."""
    if look.state is None or look.template is not None:
        return [], False
    try:
        keys, is_whole = token_keys(look.state, tokenizer, look.share)
    except DataError:  # the check of the data files says why
        return [], False
    return [KeyedSample((key,), None) for key in keys], is_whole


def _seen(look: _Look) -> tuple[Sequence[KeyedSample], bool]:
    """Return the samples seen in a file, and whether these are all; no samples of a file that cannot be read."""
    if look.state is None:
        return [], False
    path = look.state.path
    try:
        if look.template is None:
            documents = check_documents(path, look.share, keyed=True)
            return [KeyedSample((key,), None) for key in documents.keys], documents.is_whole
        if look.is_checked:
            records = check_records(path, look.template, look.image_folder, look.share, keyed=True)
            return records.keyed, records.is_whole
        return keyed_records(path, look.template, look.share)
    except (DataError, RecipeError):  # the check of the data files says why
        return [], False
