"""Data files that are the same file or copies of each other: training data says nothing about new data.

What is said of validation data that was trained on stands here, for files and for samples.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from neva_recipes.config import DataError, Recipe, expand_path, listed_paths, path_is
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.data.file_states import FileState, file_state, named_files
from neva_recipes.plan.findings import Finding, warning
from neva_recipes.plan.trained.trainings import RecipesOf, earlier_trainings, recipes_of_run
from neva_recipes.sources.indexed import indexed_tokens, is_indexed

__all__ = [
    "NOTHING_NEW",
    "TRAINED_ON",
    "TRAINING",
    "VALIDATION",
    "check_validation_files",
    "files_trained_on",
    "is_same_file",
    "of_source",
    "read_ends",
    "shared_text",
    "trained_files",
    "trainings_of",
    "validation_warning",
]

TRAINED_ON = "the model was trained on this file, or a copy of it: its answers say nothing of new questions"
"""What to say about questions from training data."""

NOTHING_NEW = "their answers say nothing of new questions"
"""What to say about questions that were trained on."""

_BYTES = 2**16
"""Bytes compared at the start and at the end of files of the same size."""

_FEW = 0.1
"""Share of the documents of a text up to which an indexed dataset is not that text."""

TRAINING, VALIDATION = "data.data_path", "data.validation_data_path"
"""The fields that name training and validation files."""


def trained_files(recipes: Sequence[Recipe], names: Iterable[str], recipes_of: RecipesOf = recipes_of_run) -> list[str]:
    """Return the data files that a model was trained on: the same paths, or copies.

    Args:
        recipes: The recipes that it was trained with.
        names: Paths of data files; a name that is not a file here is left out.
        recipes_of: Returns the recipes of the runs that its weights come from.
    """
    earlier = [training.recipe for recipe in recipes for training in earlier_trainings(recipe, recipes_of)]
    return files_trained_on([*recipes, *earlier], names)


def trainings_of(recipe: Recipe, recipes_of: RecipesOf) -> Iterator[tuple[str, str | None, Recipe]]:
    """Yield every training of a recipe's weights: the field that says so, the earlier run, and its recipe.

    The first is the training by the recipe itself, without an earlier run.
    """
    yield TRAINING, None, recipe
    for part, source, trained in earlier_trainings(recipe, recipes_of):
        yield f"model.{part}.from_pretrained", source, trained


def check_validation_files(recipe: Recipe, recipes_of: RecipesOf = recipes_of_run) -> Iterator[Found]:
    """Yield a warning if a validation file is a training file of the recipe, or of a run that weights come from."""
    named = listed_paths(recipe.data.validation_data_path)
    if not named:
        return
    told: dict[tuple[str, str | None], list[str]] = {}
    same: set[str] = set()
    for field, source, trained in trainings_of(recipe, recipes_of):
        if files := files_trained_on([trained], (name for name in named if name not in same)):
            told.setdefault((field, source), []).extend(files)
            same.update(files)
    rest = [name for name in named if name not in same]
    for (field, source), files in told.items():
        which = f"{', '.join(files)}: " if len(named) > 1 else ""
        said = f"{which}this is training data{of_source(source)}, or a copy of it"
        yield found(validation_warning(said, recipe, field), [{VALIDATION: rest or None}])


def of_source(source: str | None) -> str:
    """Return as text of which earlier run something is; empty if of none."""
    return "" if source is None else f" of {source}, which weights come from"


def validation_warning(said: str, recipe: Recipe, field: str, there: str = "", image: str | None = None) -> Finding:
    """Return the warning that validation data was trained on.

    Args:
        said: What was trained on.
        recipe: The recipe that validates on it.
        field: The field that says that it was trained on.
        there: Where val_loss says nothing, if not everywhere.
        image: The image of the first sample that was trained on, if it is known and has one.
    """
    chosen = "the best checkpoint would be chosen on what was trained on"
    message = f"{said}: val_loss says nothing of new data{there}, and {chosen}"
    advice = "name samples that are held out of the training"
    advice += "" if image is None else f"; the first of these has the image {image}"
    return warning("validation-is-training", message, recipe, VALIDATION, field, advice=advice)


def files_trained_on(recipes: Iterable[Recipe], names: Iterable[str]) -> list[str]:
    """Return the data files that the recipes themselves train on: the same paths, or copies.

    Indexed datasets are their own text too, if that is as it was when they were made.
    """
    named = [path for recipe in recipes for path in named_files(recipe, TRAINING)]
    training = [*named, *(source for path in named if is_indexed(path) for source in _sources(path))]
    return [name for name in names if any(is_same_file(expand_path(name), path) for path in training)]


def _sources(index: Path) -> list[Path]:
    """Return the texts that an indexed dataset was made of; none if it holds only few of their documents."""
    try:
        made = indexed_tokens(index).made
        documents = made["documents"]
        if documents[index.stem] <= _FEW * sum(documents.values()):
            return []
        states = [FileState(Path(each["path"]), each["bytes"], each["modified"]) for each in made["sources"]]
        return [state.path for state in states if path_is(state.path) and file_state(state.path) == state]
    except (DataError, KeyError, TypeError):  # what Megatron's own tools wrote says nothing of it
        return []


def shared_text(shared: int, samples: str, source: str | None = None, *, at_least: bool = False) -> str:
    """Return as text that `shared` of the `samples` (their number and kind) are training samples, of an earlier run."""
    are = "is a training sample" if shared == 1 else "are training samples"
    return f"{'at least ' if at_least else ''}{shared:,} of the {samples} {are}{of_source(source) or ' too'}"


def is_same_file(path: Path, other: Path) -> bool:
    """Return whether two files are the same or copies: equal in size, start and end; False if one is not here."""
    try:
        size = path.stat().st_size
        if not path.is_file() or size != other.stat().st_size:
            return False
        return path.samefile(other) or (size > 0 and read_ends(path, size) == read_ends(other, size))
    except (OSError, ValueError):  # not here, or not readable
        return False


def read_ends(path: Path, size: int) -> tuple[bytes, bytes]:
    """Return the start and the end of a file of `size` bytes, which tell it from others of its size.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        begin = file.read(_BYTES)
        file.seek(max(0, size - _BYTES))
        return begin, file.read(_BYTES)
