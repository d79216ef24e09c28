"""Runs and checkpoints of ours that a part of the model starts from: found, whole, and of the recipe's shape."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError, Recipe, build, load_recipe

__all__ = ["PARTS", "find_checkpoint", "model_differences", "read_saved_recipe"]

PARTS = ("language", "vision", "projector")

_FREE_FIELDS = {
    "freeze",
    "from_pretrained",
    "hidden_dropout",
    "attention_dropout",
    "init_method_std",
    "make_vocab_size_divisible_by",
    "image_token_len",
}
"""Fields that may differ between the run that saved a checkpoint and the one that loads it: they change no shape."""


def model_differences(saved: Recipe, recipe: Recipe, part: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields in which a part of a saved model is not that of a recipe: path, value there, value here.

    A projector also depends on what it stands between. Where the saved model has no such part, its path alone comes.
    """
    ours, theirs = getattr(recipe.model, part), getattr(saved.model, part)
    if theirs is None:
        yield f"model.{part}", None, ours
        return
    for field in dataclasses.fields(ours):
        there, here = getattr(theirs, field.name), getattr(ours, field.name)
        if field.name not in _FREE_FIELDS and there != here:
            yield f"model.{part}.{field.name}", there, here
    if part == "projector":
        for neighbour in ("language", "vision"):
            there, here = (getattr(one.model, neighbour).hidden_size for one in (saved, recipe))
            if there != here:
                yield f"model.{neighbour}.hidden_size", there, here


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint meant by the directory of a checkpoint or a run: of a run, its newest.

    Raises:
        CheckpointError: There is none, or one of its files is missing or of another length than when it was saved.
    """
    checkpoint = _resolve(path)
    source = checkpoint / "checkpoint.json"
    try:
        sizes = json.loads(source.read_text(encoding="utf-8")).get("files", {})
        for name, size in sizes.items():
            if not (checkpoint / name).is_file() or (checkpoint / name).stat().st_size != size:
                raise CheckpointError(f"{checkpoint / name} is missing or cut off: use an earlier checkpoint")
    except FileNotFoundError:
        raise CheckpointError(f"{source} is missing: not a complete checkpoint") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{source} cannot be read: {error}") from None
    return checkpoint


def _resolve(path: Path) -> Path:
    if (path / "checkpoint.json").is_file() or path.name.startswith("step-"):
        return path
    folder = path / "checkpoints"
    found = [entry for entry in folder.iterdir() if entry.name.startswith("step-")] if folder.is_dir() else []
    if found:
        return max(found)
    if (path / "recipe.yaml").is_file():
        raise CheckpointError("the run has no checkpoint yet")
    raise CheckpointError("is neither a Hugging Face directory, nor a run, nor a checkpoint")


def read_saved_recipe(checkpoint: Path) -> Recipe:
    """Return the recipe a checkpoint was trained with.

    Raises:
        RecipeError: The file is missing or not a valid recipe.
    """
    return build(load_recipe(checkpoint / "recipe.yaml"))
