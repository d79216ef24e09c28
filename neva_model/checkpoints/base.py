"""The weights beside adapters, which checkpoints of adapters name and do not hold."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from neva_model.checkpoints.huggingface.source import find_directory
from neva_model.checkpoints.information import BaseRecord, SavedAdapters, resolve_checkpoint
from neva_recipes.config import CheckpointError, Recipe
from neva_recipes.plan.huggingface import open_directory
from neva_recipes.plan.origins.checkpoints import PARTS, is_checkpoint
from neva_recipes.run_directory.names import INFORMATION_FILE
from neva_recipes.run_directory.needed import mark_needed
from neva_recipes.storage.checkpoints import read_record
from neva_recipes.storage.digests import sampled_digest, text_digest

__all__ = ["base_of", "with_base"]


def base_of(recipe: Recipe, run: Path) -> dict[str, BaseRecord]:
    """Return where the fixed weights of a recipe's model are, by part, without those that are random.

    A checkpoint among them is marked, so that its run keeps it.

    Args:
        recipe: The recipe.
        run: The run that trains beside them.

    Raises:
        CheckpointError: They are not there.
    """
    found: dict[str, BaseRecord] = {}
    for part in PARTS:
        config = getattr(recipe.model, part)
        if config is not None and not config.trains_weights and config.source is not None:
            path = (find_directory(config.source) or resolve_checkpoint(config.source)).absolute()
            found[part] = BaseRecord(
                source=str(path), from_run=os.path.relpath(path, run.absolute()), digest=_digest(path)
            )
            if is_checkpoint(path):
                mark_needed(path, run)
    return found


def _digest(path: Path) -> str:
    if (path / INFORMATION_FILE).is_file():
        digests = read_record(path)["digests"]
        return text_digest("".join(f"{name} {digest}\n" for name, digest in sorted(digests.items())))
    files = sorted({tensor.file for tensor in open_directory(path, thorough=True).tensors.values()})
    return sampled_digest(files)


def with_base(recipe: Recipe, saved: SavedAdapters) -> Recipe:
    """Return the recipe of a checkpoint of adapters, with the weights that they were trained beside.

    What the checkpoint holds itself is random in it, for it is about to be replaced.

    Args:
        recipe: The recipe that the checkpoint was saved with.
        saved: The checkpoint.

    Raises:
        CheckpointError: The weights are not there any more, or are others.
    """
    parts: dict[str, Any] = {}
    for part in PARTS:
        config = getattr(recipe.model, part)
        if config is not None:
            record = saved.information.base.get(part)
            source = None if record is None else str(_found(record, saved.checkpoint, part))
            parts[part] = dataclasses.replace(config, from_pretrained=source)
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **parts))


def _found(record: BaseRecord, checkpoint: Path, part: str) -> Path:
    """Return where the weights are now: where they were, or where they are if the runs were moved together."""
    recorded = Path(record["source"])
    moved = Path(os.path.normpath(checkpoint.absolute().parents[1] / record["from_run"]))
    what = f"the adapters were trained beside the weights of model.{part} that were there"
    there = [path for path in dict.fromkeys((recorded, moved)) if path.is_dir()]
    if not there:
        also = "" if moved == recorded else f", nor is {moved}"
        raise CheckpointError(f"{recorded}: no such directory{also}, but {what}: put it back")
    digests = {path: _digest(path) for path in there}
    for path, digest in digests.items():
        if digest == record["digest"]:
            return path
    raise CheckpointError(
        f"{there[0]}: has changed, and {what}: put them back (digest {record['digest']}, found {digests[there[0]]})"
    )
