"""The weights beside adapters, which checkpoints of adapters name and do not hold."""

import dataclasses
from pathlib import Path
from typing import Any

from neva_model.checkpoints.huggingface.source import find_directory
from neva_model.checkpoints.information import BaseRecord, CheckpointInformation, resolve_checkpoint
from neva_recipes.config import CheckpointError, Recipe
from neva_recipes.plan.huggingface import open_directory
from neva_recipes.plan.origins.checkpoints import PARTS
from neva_recipes.run_directory.names import INFORMATION_FILE
from neva_recipes.storage.checkpoints import read_record
from neva_recipes.storage.digests import sampled_digest, text_digest

__all__ = ["base_of", "with_base"]


def base_of(recipe: Recipe) -> dict[str, BaseRecord]:
    """Return where the fixed weights of a recipe's model are, by part, without those that are random.

    Raises:
        CheckpointError: They are not there.
    """
    found: dict[str, BaseRecord] = {}
    for part in PARTS:
        config = getattr(recipe.model, part)
        if config is not None and not config.trains_weights and config.source is not None:
            path = find_directory(config.source) or resolve_checkpoint(config.source)
            found[part] = BaseRecord(source=str(path.absolute()), digest=_digest(path))
    return found


def _digest(path: Path) -> str:
    if (path / INFORMATION_FILE).is_file():
        digests = read_record(path)["digests"]
        return text_digest("".join(f"{name} {digest}\n" for name, digest in sorted(digests.items())))
    files = sorted({tensor.file for tensor in open_directory(path, thorough=True).tensors.values()})
    return sampled_digest(files)


def with_base(recipe: Recipe, information: CheckpointInformation) -> Recipe:
    """Return the recipe of a checkpoint of adapters, with the weights that they were trained beside.

    What the checkpoint holds itself is random in it, for it is about to be replaced.

    Args:
        recipe: The recipe that the checkpoint was saved with.
        information: Its record.

    Raises:
        CheckpointError: The weights are not there any more, or are others.
    """
    parts: dict[str, Any] = {}
    for part in PARTS:
        config = getattr(recipe.model, part)
        if config is None:
            continue
        record = information.base.get(part)
        if record is not None:
            _require_same(record, part)
        parts[part] = dataclasses.replace(config, from_pretrained=None if record is None else record["source"])
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **parts))


def _require_same(record: BaseRecord, part: str) -> None:
    path = Path(record["source"])
    what = f"the adapters were trained beside the weights of model.{part} that were there"
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory, but {what}: put it back")
    if (digest := _digest(path)) != record["digest"]:
        raise CheckpointError(
            f"{path}: has changed, and {what}: put them back (digest {record['digest']}, found {digest})"
        )
