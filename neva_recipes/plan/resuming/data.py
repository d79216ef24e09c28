"""The data of a run that goes on: files changed since its plan, and validation on what its weights were trained on."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neva_recipes.config import Recipe, format_value, how_many, listed_paths
from neva_recipes.plan.data.file_states import named_files
from neva_recipes.plan.data.fingerprints import fingerprints
from neva_recipes.plan.data.lengths import sequence_lengths
from neva_recipes.plan.trained.same_files import TRAINING, VALIDATION, files_trained_on
from neva_recipes.sources.indexed import is_indexed

__all__ = ["changed_data", "drawn_anew", "trained_validation"]

_ORDER = "its samples may come in another order, and then some repeat in this epoch and others are missed"


def changed_data(planned: Mapping[str, Any] | None, before: Recipe, recipe: Recipe, planned_at: float) -> list[str]:
    """Return a line if the training data has changed since the run was planned; otherwise nothing.

    If the recipe names other files or reads them differently, the change of the field is reported instead.

    Args:
        planned: The run's plan.json; `None` if there is none.
        before: The recipe of that plan.
        recipe: The recipe that goes on.
        planned_at: When the plan was written, in seconds since 1970.
    """
    then = (planned or {}).get("lengths", {})
    if _reading(before) != _reading(recipe) or not then.get("measured"):
        return []
    now = sequence_lengths(recipe)
    if not now.measured:
        return []
    name, counted = format_value(recipe.data.data_path), how_many(then["samples"], "sample")
    if then["samples"] != now.samples:
        counts = f"{counted} then, {now.samples:,} now"
        return [f"{TRAINING}={name} has changed since the run was planned ({counts}): they come in another order"]
    is_newer = any(path.stat().st_mtime > planned_at for path in named_files(recipe, TRAINING))
    if is_newer and (then["tokens"], then["images"]) != (now.tokens, now.images):
        return [f"{TRAINING}={name} has changed since the run was planned: it holds other samples"]
    files = (planned or {}).get("data_files", [])
    if files and files != [dataclasses.asdict(file) for file in fingerprints(recipe, TRAINING)]:
        return [f"{TRAINING}={name} has changed since the run was planned: {_ORDER}"]
    if is_newer and not (files and all(file["is_whole"] for file in files)):
        return [f"{TRAINING}={name} was written after the run was planned, and not all of it is compared: {_ORDER}"]
    return []


def drawn_anew(saved: Recipe, recipe: Recipe) -> list[str]:
    """Return a line if indexed datasets are drawn for another number of samples than they were.

    Args:
        saved: The recipe of the checkpoint.
        recipe: The recipe that goes on.
    """
    names = listed_paths(recipe.data.data_path)
    if not names or recipe.data.dataloader_type == "single" or not all(is_indexed(Path(name)) for name in names):
        return []
    lengths = [
        (each.trainer.max_steps, each.trainer.max_epochs, each.data.global_batch_size) for each in (saved, recipe)
    ]
    if lengths[0] == lengths[1]:
        return []
    return [f"{TRAINING}: indexed datasets are drawn for the length of a training, which is another now: {_ORDER}"]


def trained_validation(saved: Recipe, recipe: Recipe) -> list[str]:
    """Return a line if a run that goes on would validate on files that its checkpoint was trained on.

    The plan of the recipe tells of files that it trains on itself.

    Args:
        saved: The recipe of the checkpoint.
        recipe: The recipe that goes on.
    """
    names = listed_paths(recipe.data.validation_data_path)
    told = files_trained_on([recipe], names)
    files = files_trained_on([saved], (name for name in names if name not in told))
    if not files:
        return []
    said = "the checkpoint was trained on this data, or a copy of it: val_loss says nothing of new data"
    return [f"{VALIDATION}={format_value(files[0] if len(files) == 1 else files)}: {said}"]


def _reading(recipe: Recipe) -> tuple[object, ...]:
    """Return what determines the lengths of samples, apart from the content of the files."""
    data = recipe.data
    template = getattr(data, "conv_template", None)
    return type(data), data.data_path, data.tokenizer, data.sequence_length, template
