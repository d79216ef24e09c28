"""Finds the questions that a model was trained on: those in its training files, and its training samples elsewhere."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import Recipe, expand_path, path_is
from neva_recipes.plan.data.file_states import named_files
from neva_recipes.plan.origins.checkpoints import PARTS
from neva_recipes.plan.trained.same_files import TRAINING, files_trained_on, is_same_file
from neva_recipes.plan.trained.sought_samples import DataFile, SoughtSamples, data_files, keyed_samples
from neva_recipes.plan.trained.trainings import earlier_trainings, moments_of_run, recipes_of_run

__all__ = ["Place", "TrainedSamples", "trained_samples"]

_SECONDS = 20.0
"""Time to read training files; an evaluation takes minutes, and the files of published trainings take seconds."""


class Place(NamedTuple):
    """The place of a sample of questions: its file, and its position in it from 0."""

    path: Path
    position: int


class TrainedSamples(NamedTuple):
    """The parts of some data files that a model was trained on.

    Attributes:
        files: The files that it was trained on, by path or as copies.
        places: Samples of the other files that it was trained on.
        is_complete: Whether every training file is here and was compared completely. Then the other samples are new to
            the model as far as its runs are concerned; what published weights have seen is unknown.
        changed: Training files that are newer than the last start that trained the weights: what they held then is
            unknown.
    """

    files: tuple[str, ...]
    places: frozenset[Place]
    is_complete: bool
    changed: tuple[Path, ...]

    def have(self, path: Path, position: int) -> bool:
        """Return whether the model was trained on the sample at a place of the data files."""
        return str(path) in self.files or Place(path, position) in self.places


def trained_samples(own: Sequence[Recipe], questions: Sequence[DataFile], source: Path) -> TrainedSamples:
    """Compare the samples of data files with the training samples of a model and of the runs its weights come from.

    Trainings on plain text are only compared by their files.

    Args:
        own: The recipe of the model, and all recipes of its run if that is here.
        questions: The data files, which must be readable.
        source: The run, checkpoint or other directory with the weights.
    """
    earlier = [training for recipe in own for training in earlier_trainings(recipe, recipes_of_run)]
    recipes = [*own, *(training.recipe for training in earlier)]
    of_runs = [*((str(source), recipe) for recipe in own), *((each.source, each.recipe) for each in earlier)]
    changed, partly_known = _changed_files(of_runs)
    files = [
        file
        for file in files_trained_on(recipes, (str(file.path) for file in questions))
        if not any(is_same_file(Path(file), path) for path in changed)
    ]
    sought, places = SoughtSamples(time.monotonic() + _SECONDS), list[Place]()
    for file in (file for file in questions if str(file.path) not in files):
        for position, sample in keyed_samples(file, hash):
            sought.add(sample, file.image_folder)
            places.append(Place(file.path, position))
    is_known = not changed and not partly_known and not any(_has_lost_source(recipe) for recipe in recipes)
    is_complete = len(own) > 1 and is_known
    trained = dict.fromkeys(file for recipe in recipes for file in data_files(recipe, TRAINING))
    for file in trained if places else ():
        if file.template is not None and file.path not in changed:
            is_complete &= sought.look_through(file, hash)
    return TrainedSamples(tuple(files), frozenset(places[number] for number in sought.found), is_complete, changed)


def _changed_files(trainings: Iterable[tuple[str, Recipe]]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the training files whose content at the time of training is unknown, and those where it is partly known.

    A file that was written after the last start that trained the weights is unknown. A file that was written between
    the first plan and that start, such as one that was mended before a resume, is known to the last attempt only.

    Args:
        trainings: The run or checkpoint of each training, and its recipe.
    """
    unknown: dict[Path, None] = {}
    partly: dict[Path, None] = {}
    for source, recipe in trainings:
        if (moments := moments_of_run(source)) is not None:
            for path in named_files(recipe, TRAINING):
                written = path.stat().st_mtime
                if written > moments.started:
                    unknown[path] = None
                elif written > moments.planned:
                    partly[path] = None
    return tuple(unknown), tuple(partly)


def _has_lost_source(recipe: Recipe) -> bool:
    """Return whether weights come from a folder that no longer exists, so that its training is unknown."""
    parts = [getattr(recipe.model, part) for part in PARTS]
    paths = [expand_path(part.source) for part in parts if part is not None and part.source is not None]
    return any(path.is_absolute() and not path_is(path) for path in paths)
