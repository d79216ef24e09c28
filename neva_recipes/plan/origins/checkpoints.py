"""Our own runs and checkpoints that a part of the model starts from: find them and compare their shape."""

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from neva_recipes.config import (
    CheckpointError,
    PlainTable,
    Recipe,
    build,
    expand_path,
    format_value,
    load_recipe,
    path_is,
    tokenizer_name,
)
from neva_recipes.families.rope import rope_differences
from neva_recipes.run_directory.layout import CHECKPOINTS, RECIPE_FILE
from neva_recipes.run_directory.names import DESCRIPTIONS, INFORMATION_FILE, list_checkpoints, step_of
from neva_recipes.run_directory.standing import lacks_checkpoint
from neva_recipes.storage.checkpoints import require_files

__all__ = [
    "BESIDE_ADAPTERS",
    "CHANGED_SINCE",
    "PARTS",
    "OtherVocabulary",
    "find_checkpoint",
    "find_run_directory",
    "is_checkpoint",
    "is_without",
    "model_differences",
    "other_vocabulary",
    "read_saved_recipe",
]

PARTS = ("language", "vision", "projector")

_FREE_FIELDS = {
    "freeze",
    "lora",
    "quantize",
    "from_pretrained",
    "hidden_dropout",
    "attention_dropout",
    "init_method_std",
    "make_vocab_size_divisible_by",
    "image_token_len",
}
"""Fields that may differ between the run that saved a checkpoint and the run that loads it: they change no shape."""

_ROPE_FIELDS = ("rope", "rope_scaling_factor")
"""Fields that say how rotary positions are stretched."""


def is_without(saved: Recipe, part: str) -> bool:
    """Return whether a checkpoint holds adapters, and not the weights of a part that they were trained beside.

    Args:
        saved: The recipe of the checkpoint.
        part: `language`, `vision` or `projector`.
    """
    config = getattr(saved.model, part)
    return saved.model.is_saved_in_part and config is not None and not config.trains_weights


BESIDE_ADAPTERS = "holds adapters and not the weights beside them: nemo-run merge RUN DIR makes a directory of both"
"""Why the weights of a part cannot be taken from a checkpoint of adapters."""


def model_differences(saved: Recipe, recipe: Recipe, part: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields in which a part of a saved model differs from that of a recipe: path, saved value, value here.

    Rotary positions differ if what is computed does, and then in the words of the saved model. A projector also depends
    on its neighbours. If the saved model has no such part, only the path of the part is yielded.
    """
    ours, theirs = getattr(recipe.model, part), getattr(saved.model, part)
    if theirs is None:
        yield f"model.{part}", None, ours
        return
    for field in dataclasses.fields(ours):
        there, here = getattr(theirs, field.name), getattr(ours, field.name)
        if field.name not in (*_FREE_FIELDS, *_ROPE_FIELDS) and there != here:
            yield f"model.{part}.{field.name}", there, here
    if part == "language":
        for name, there, here in rope_differences(theirs, ours):
            yield f"model.language.{name}", there, here
    if part == "projector":
        for neighbour in ("language", "vision"):
            there, here = (getattr(one.model, neighbour).hidden_size for one in (saved, recipe))
            if there != here:
                yield f"model.{neighbour}.hidden_size", there, here


CHANGED_SINCE = "it has changed since: put back the one of the training"
"""What to do about a tokenizer that is not the one of the training, though it is found in the same place."""


class OtherVocabulary(NamedTuple):
    """A tokenizer whose tokens are not those of a saved embedding.

    Attributes:
        message: What is wrong.
        remedy: What to set; empty if no field mends it.
    """

    message: str
    remedy: PlainTable

    def line(self, *, by_flag: bool = False) -> str:
        """Return the message and the remedy as one line.

        Args:
            by_flag: Whether the command takes a tokenizer by its flag `--tokenizer`, and no fields.
        """
        todo = CHANGED_SINCE
        for field, value in self.remedy.items():
            setting = "give --tokenizer " if by_flag else f"set {field}="
            path = expand_path(value) if field == "data.tokenizer" else None
            if path is not None and path.is_absolute() and not path_is(path):  # else it is a name on the hub
                todo = f"{setting}PATH, where that of the training is now; it was {value}"
            else:
                todo = f"{setting}{shlex.quote(format_value(value))}"
        return f"{self.message}: {todo}"


def other_vocabulary(there: str | None, here: str | None, saved: Recipe, recipe: Recipe) -> OtherVocabulary | None:
    """Return what is wrong with the tokenizer of a recipe that will use a saved embedding.

    Args:
        there: Digest of the vocabulary that a checkpoint was trained with; `None` if unknown.
        here: Digest of the recipe's vocabulary; `None` if unknown.
        saved: The recipe of the checkpoint.
        recipe: The recipe that will use it.

    Returns:
        What is wrong; `None` if the vocabularies are the same or one is unknown.

    Raises:
        RecipeError: One of the recipes names no tokenizer.
    """
    if None in (there, here) or there == here:
        return None
    own, name = tokenizer_name(saved), tokenizer_name(recipe)
    remedy: PlainTable = {}
    if expand_path(own).absolute() != expand_path(name).absolute():
        remedy["data.tokenizer"] = own
    elif saved.model.use_im_start_end != recipe.model.use_im_start_end:
        remedy["model.use_im_start_end"] = saved.model.use_im_start_end
    return OtherVocabulary(f"was trained with another vocabulary than that of {name}", remedy)


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that a path means: the checkpoint itself, or the newest one of a run.

    Raises:
        CheckpointError: There is none, or one of its files is missing or damaged; of tensors only the size is checked.
    """
    checkpoint = _resolve(path)
    require_files(checkpoint)
    return checkpoint


def is_checkpoint(path: Path) -> bool:
    """Return whether a directory is a checkpoint or has the name of one; a run is not one."""
    return (path / INFORMATION_FILE).is_file() or step_of(path) is not None


def _resolve(path: Path) -> Path:
    if is_checkpoint(path):
        return path
    if found := list_checkpoints(path / CHECKPOINTS):
        return found[-1]
    if (path / RECIPE_FILE).is_file():
        raise CheckpointError(lacks_checkpoint(path))
    raise CheckpointError("is neither a Hugging Face directory, nor a run, nor a checkpoint")


def read_saved_recipe(checkpoint: Path) -> Recipe:
    """Return the recipe a checkpoint was trained with.

    The files that a converted checkpoint keeps are named where they are now, wherever it was written.

    Raises:
        RecipeError: The file is missing or not a valid recipe.
    """
    recipe = build(load_recipe(checkpoint / RECIPE_FILE))
    here = checkpoint.absolute() / DESCRIPTIONS
    return _with_kept_files(recipe, here) if here.is_dir() else recipe


def _with_kept_files(recipe: Recipe, here: Path) -> Recipe:
    """Return a recipe with other paths of what it names in the folder that its checkpoint keeps: those in `here`."""
    vision = recipe.model.vision
    named = [recipe.data.tokenizer, vision.from_pretrained if vision is not None else None]
    # Another folder of this name belongs to a checkpoint that a run has started from.
    folders = (folder for value in named if value is not None if (folder := _kept_folder(Path(value))) is not None)
    there = next(folders, None)

    def found(value: str | None) -> str | None:
        if value is None or there is None or not Path(value).is_relative_to(there):
            return value
        return str(here / Path(value).relative_to(there))

    if vision is not None:
        vision = dataclasses.replace(vision, from_pretrained=found(vision.from_pretrained))
    data = dataclasses.replace(recipe.data, tokenizer=found(recipe.data.tokenizer))
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, vision=vision), data=data)


def _kept_folder(path: Path) -> Path | None:
    """Return the folder of kept files that a path is or lies in."""
    return next((folder for folder in (path, path.parent) if folder.name == DESCRIPTIONS), None)


def find_run_directory(path: Path) -> Path | None:
    """Return the run that a path means: the run itself, or that of a checkpoint; `None` if there is none.

    A checkpoint outside of a run stands for its run.
    """
    folders = (path.parent.parent, path) if path.parent.name == CHECKPOINTS else (path,)
    return next((folder for folder in folders if path_is(folder / RECIPE_FILE, Path.is_file)), None)
