"""A vision tower that config.json does not describe: one that the original LLaVA trained and saved with its model."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from neva_recipes.config import PlainTable, expand_path, path_is
from neva_recipes.families import VisionFamily, vision_families
from neva_recipes.plan.huggingface.configuration import read_configuration
from neva_recipes.plan.huggingface.hub import cached_models, cached_snapshot, could_be_on_hub, is_cached
from neva_recipes.plan.huggingface.tensors import StoredTensor

__all__ = ["read_tower", "tower_directory"]


def tower_directory(source: str | None, *, weights: bool = False) -> Path | None:
    """Return the directory that `mm_vision_tower` names, or what has been fetched of a name on the hub.

    Args:
        source: The name.
        weights: Whether all weights must have been fetched, too.

    Returns:
        The directory, which has a config.json; `None` if there is none here.
    """
    path = expand_path(source) if source else None
    if source and path is not None and not path_is(path) and could_be_on_hub(source):
        cache = cached_models(os.environ)
        path = cached_snapshot(source, cache) if not weights or is_cached(source, cache, weights=True) else None
    return path if path is not None and path_is(path / "config.json", Path.is_file) else None


def read_tower(
    tensors: Mapping[str, StoredTensor], spelling: str, source: str | None
) -> tuple[VisionFamily, PlainTable]:
    """Return the family of a tower, and what is known about it, by the keys of a config.json.

    Its sizes are those of its tensors. Its heads, activation and epsilon are only in the config.json of the tower that
    it was trained from; they are left out if that is not here.

    Args:
        tensors: The tensors of the checkpoint.
        spelling: Prefix of the tower's tensors.
        source: The tower that it was trained from (`mm_vision_tower`): a folder or a name on the hub; `None` if
            unknown.

    Raises:
        CheckpointError: The config.json of the tower it was trained from cannot be read.
        ValueError: The tensors are not those of a tower.
    """
    told = read_configuration(path) if (path := tower_directory(source)) is not None else None
    if told is not None and told.tower_family is not None and told.vision is not None:
        return told.tower_family, dict(told.vision)
    fitting = (one for one in vision_families() if all(f"{spelling}{name}" in tensors for name in one.before))
    family = next(fitting, None)
    if family is None:
        raise ValueError(f"{spelling}embeddings: are those of no known vision tower")
    sizes = _sizes(tensors, spelling, family)
    prefix = f"{spelling}{family.layers}."
    numbers = {name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)}
    return family, {
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["ffn"],
        "num_hidden_layers": len(numbers),
        "image_size": math.isqrt(max(sizes["positions"] - family.has_class_token, 0)) * sizes["patch"],
        "patch_size": sizes["patch"],
    }


def _sizes(tensors: Mapping[str, StoredTensor], spelling: str, family: VisionFamily) -> dict[str, int]:
    """Return the dimensions of a tower, each by the first tensor that has it."""
    sizes: dict[str, int] = {}
    first = {f"{family.layers}.0.{name}": axes for name, axes in family.layer.items()}
    for name, axes in {**family.before, **first}.items():
        if any(isinstance(axis, str) and axis not in sizes for axis in axes):
            shape = _shape(tensors, f"{spelling}{name}", len(axes))
            sizes |= {axis: size for axis, size in zip(axes, shape, strict=True) if isinstance(axis, str)}
    return sizes


def _shape(tensors: Mapping[str, StoredTensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in tensors:
        raise ValueError(f"has no tensor {name}")
    shape = tensors[name].shape
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} has shape {list(shape)}, expected {dimensions} dimensions")
    return shape
