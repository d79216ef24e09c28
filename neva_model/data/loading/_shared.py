"""Counts the validation samples that were trained on: in this run, or in a run that its weights come from."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neva_model.data.blend import BlendedSamples
from neva_model.data.joined import JoinedSamples
from neva_model.data.llava import LlavaDataset
from neva_model.data.text import TextDataset
from neva_recipes.config import Recipe, TextDataConfig, how_many
from neva_recipes.plan.trained.same_files import VALIDATION, shared_text
from neva_recipes.plan.trained.sought_samples import (
    KeyedSample,
    SoughtSamples,
    data_files,
    files_by_training,
    keyed_samples,
)
from neva_recipes.plan.trained.trainings import recipes_of_run
from neva_recipes.prompts.identity import key_of
from neva_recipes.run_directory.told import was_told

__all__ = ["tell_of_shared"]

_SECONDS = 20.0
"""Time to compare with each training; the files of published trainings take seconds, and this run takes hours."""

_AT_ONCE = 2**22
"""Number of training keys compared at a time, since all of them may not fit into memory."""


def tell_of_shared(recipe: Recipe, training: JoinedSamples | BlendedSamples, run_dir: Path) -> None:
    """Print notes if validation samples, or documents of text, were trained on; every rank must call this.

    What the plan of the run has told in the same numbers is not told again.

    Args:
        recipe: The recipe to train, which names validation files.
        training: Its training samples, whose indices hold their keys.
        run_dir: The run directory.

    Raises:
        DataError: A file has changed since it was indexed.
    """
    own = [(file, file.keys() if isinstance(file, TextDataset) else file.keys) for file in training.files]
    if os.environ.get("RANK", "0") != "0":
        return
    validation = data_files(recipe, VALIDATION)
    is_text = isinstance(recipe.data, TextDataConfig)
    samples = [(sample, file.image_folder) for file in validation for _, sample in keyed_samples(file, key_of)]
    wanted = np.unique(np.array([sample.keys[0] for sample, _ in samples], dtype=np.uint64))
    for (_, source), trained in files_by_training(recipe, recipes_of_run).items():
        sought = SoughtSamples(time.monotonic() + _SECONDS)
        for sample, folder in samples:
            sought.add(sample, folder)
        if source is None:
            seen = [_look_at_own(file, keys, wanted, sought) for file, keys in own]
        else:
            files = [file for file in trained if (file.template is None) == is_text]
            seen = [sought.look_through(file, key_of) for file in files]
        if sought.found:
            kind = "text" if is_text else "sample"
            planned, said = (
                shared_text(len(sought.found), how_many(sought.count, each), source, at_least=not all(seen))
                for each in (kind, f"validation {kind}")
            )
            if not was_told(run_dir, "validation-is-training", planned):
                print(f"note: {said}: val_loss says nothing of new data there", flush=True)


def _look_at_own(
    file: LlavaDataset | TextDataset, keys: NDArray[np.uint64], wanted: NDArray[np.uint64], sought: SoughtSamples
) -> bool:
    """Look at the samples of an indexed training file; return whether there was time for all of them."""
    for place in _places(keys, wanted):
        if not sought.has_time():
            return False
        key = (int(keys[place]),)
        if isinstance(file, TextDataset):
            sought.look_at(KeyedSample(key, None), Path())
        else:
            name = file.image_of(int(np.searchsorted(file.key_ends, place, side="right")))
            sought.look_at(KeyedSample(key, name), file.image_folder)
    return not sought.is_cut


def _places(keys: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> Iterator[int]:
    """Yield where keys are that are also wanted."""
    for start in range(0, len(keys), _AT_ONCE):
        yield from (np.flatnonzero(np.isin(keys[start : start + _AT_ONCE], wanted)) + start).tolist()
