"""The files a recipe names, looked at before a job is started."""

import copy
from pathlib import Path
from typing import Any

import fiddle as fdl

from neva_recipes.config.data import LlavaDataConfig
from neva_recipes.config.recipe import Recipe
from neva_recipes.config.tree import iterate_fields

__all__ = ["missing_inputs", "with_absolute_inputs"]

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
        path = Path(field.value).expanduser()
        if path.exists() and not Path(field.value).is_absolute():
            node: Any = resolved
            for group in groups:
                node = getattr(node, group)
            setattr(node, name, str(path.absolute()))
    return resolved


def missing_inputs(recipe: Recipe) -> list[str]:
    """Return what keeps a recipe from being run here, a line each: inputs that are not set, and files not there.

    Names that may also stand for something on the Hugging Face hub are left to the worker.
    """
    problems = []
    data, model = recipe.data, recipe.model
    if data.data_path is None:
        problems.append("data.data_path is not set: add data.data_path=FILE")
    if data.tokenizer is None and model.language.from_pretrained is None:
        problems.append("data.tokenizer is not set, nor model.language.from_pretrained: add data.tokenizer=PATH")
    for field, path in (("data_path", data.data_path), ("validation_data_path", data.validation_data_path)):
        if path is not None and not Path(path).is_file():
            problems.append(f"data.{field}={path}: no such file: set it to the one to read")
    if isinstance(data, LlavaDataConfig) and data.image_folder and not Path(data.image_folder).is_dir():
        problems.append(f"data.image_folder={data.image_folder}: no such folder: set it to that of the images")
    weights = {"model.language": model.language, "model.vision": model.vision, "model.projector": model.projector}
    names = {f"{part}.from_pretrained": node.from_pretrained for part, node in weights.items() if node is not None}
    for field, name in {"data.tokenizer": data.tokenizer, **names}.items():
        if name is not None and name.startswith(("/", "./", "../", "~")) and not Path(name).exists():
            problems.append(f"{field}={name}: no such file or folder")
    return problems
