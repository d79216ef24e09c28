"""The files a recipe names, looked at before a job is started."""

import copy
import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl

from neva_recipes.config.data import LlavaDataConfig
from neva_recipes.config.recipe import Recipe
from neva_recipes.config.tree import iterate_fields

__all__ = ["missing_inputs", "with_absolute_inputs"]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

_INPUTS = ("data_path", "validation_data_path", "image_folder", "tokenizer", "from_pretrained")
"""Fields, in whatever group, that name a file or folder to read."""


def with_absolute_inputs(recipe: fdl.Buildable[Recipe]) -> fdl.Buildable[Recipe]:
    """Return a copy of a recipe in which every file and folder that is there has its absolute path.

    A run can then be resumed, chatted with and exported from any folder. Names of what is not there may be names of the
    Hugging Face hub, and stay.
    """
    resolved = copy.deepcopy(recipe)
    for field in iterate_fields(recipe):
        *groups, name = field.path.split(".")
        if name not in _INPUTS or not isinstance(field.value, str):
            continue
        path = _expanded(field.value)
        if _exists(path) and not Path(field.value).is_absolute():
            node: Any = resolved
            for group in groups:
                node = getattr(node, group)
            setattr(node, name, str(path.absolute()))
    return resolved


def missing_inputs(recipe: Recipe) -> list[str]:
    """Return what keeps a recipe from being run here, a line each: inputs that are not set, and files not there.

    Names that can only stand for something on the Hugging Face hub are left to the worker. A name whose first half is a
    folder here is taken for a path.
    """
    problems = []
    data, model = recipe.data, recipe.model
    if data.data_path is None:
        problems.append("data.data_path is not set: add data.data_path=FILE")
    if data.tokenizer is None and model.language.from_pretrained is None:
        problems.append("data.tokenizer is not set, nor model.language.from_pretrained: add data.tokenizer=PATH")
    for field, name in (("data_path", data.data_path), ("validation_data_path", data.validation_data_path)):
        if name is not None and not _exists(_expanded(name), Path.is_file):
            what = "is a folder, expected a file" if _exists(_expanded(name)) else "no such file"
            problems.append(f"data.{field}={name}: {what}: set it to the one to read{_nearest(name)}")
    folder = data.image_folder if isinstance(data, LlavaDataConfig) else None
    if folder is not None and not _exists(_expanded(folder), Path.is_dir):
        what = "is a file, expected a folder" if _exists(_expanded(folder)) else "no such folder"
        problems.append(f"data.image_folder={folder}: {what}: set it to that of the images{_nearest(folder)}")
    weights = {"model.language": model.language, "model.vision": model.vision, "model.projector": model.projector}
    names = {f"{part}.from_pretrained": node.from_pretrained for part, node in weights.items() if node is not None}
    for field, name in {"data.tokenizer": data.tokenizer, **names}.items():
        if name is None or _exists(_expanded(name)):
            continue
        if not _HUB_NAME.fullmatch(name):
            problems.append(f"{field}={name}: no such file or folder{_nearest(name)}")
        elif _exists(Path(name).parent, Path.is_dir):
            hint = _nearest(name) or "; what is in a folder that is here is not looked for on the Hugging Face hub"
            problems.append(f"{field}={name}: no such file or folder{hint}")
    return problems


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def _exists(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # a name too long, a folder that must not be searched
        return False


def _nearest(name: str) -> str:
    """Return the hint at files whose names are like a missing one's, empty if there are none."""
    folder = _expanded(name).parent
    try:
        names = [entry.name for entry in folder.iterdir() if entry != _expanded(name)]
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(Path(name).name, names, n=2, cutoff=0.7)
    return f" (did you mean {', '.join(str(Path(name).parent / entry) for entry in near)}?)" if near else ""
