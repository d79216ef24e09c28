"""The files a recipe names: which fields name them, and where they lie."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl

from neva_recipes.config.errors import RecipeError
from neva_recipes.config.recipe import Recipe
from neva_recipes.config.serialization import load_recipe
from neva_recipes.config.tree import build, iterate_fields

__all__ = ["expand_path", "input_paths", "path_is", "tokenizer_name", "with_absolute_inputs"]

_INPUTS = ("data_path", "validation_data_path", "image_folder", "tokenizer", "from_pretrained")
"""Fields, in whatever group, that name a file or folder to read."""

_MODEL_INPUTS = ("tokenizer", "from_pretrained")
"""Those of them that name a few files, which may be links into a store of files."""


def with_absolute_inputs(recipe: fdl.Buildable[Recipe]) -> fdl.Buildable[Recipe]:
    """Return a recipe in which every file and folder that is there has its absolute path; groups may be the same ones.

    A run can then be resumed, chatted with and exported from any folder. Names of what is not there may be names of the
    Hugging Face hub, and stay.
    """
    resolved = copy.copy(recipe)
    for field in iterate_fields(recipe):
        *groups, name = field.path.split(".")
        if name not in _INPUTS or not isinstance(field.value, str):
            continue
        path = expand_path(field.value)
        if path_is(path) and not Path(field.value).is_absolute():
            node: Any = resolved
            for group in groups:
                setattr(node, group, copy.copy(getattr(node, group)))
                node = getattr(node, group)
            setattr(node, name, str(path.absolute()))
    return resolved


def input_paths(recipe: fdl.Buildable[Recipe], fields: tuple[str, ...] = _INPUTS) -> list[Path]:
    """Return every file and folder here that a process needs to read for a recipe, as absolute paths.

    Beside what the recipe names these are the folders that links in its models lead to, and of the runs it starts from
    the tokenizers that their recipes name.

    Args:
        recipe: The recipe.
        fields: Names of the fields to look at.

    Raises:
        RecipeError: A run it starts from has a recipe that cannot be read.
    """
    found: list[Path] = []
    for field in iterate_fields(recipe):
        name = field.path.split(".")[-1]
        path = expand_path(field.value).absolute() if name in fields and isinstance(field.value, str) else None
        if path is None or not path_is(path):
            continue
        found.append(path)
        if name in _MODEL_INPUTS and path_is(path, Path.is_dir):
            found += [entry.resolve().parent for entry in path.iterdir() if entry.is_symlink()]
        for folder in (path, *path.parents[:2]) if name == "from_pretrained" else ():
            if path_is(folder / "recipe.yaml", Path.is_file):
                found += [folder, *input_paths(load_recipe(folder / "recipe.yaml"), _MODEL_INPUTS)]
    return list(dict.fromkeys(found))


def tokenizer_name(recipe: Recipe) -> str:
    """Return where a recipe's tokenizer comes from: its own, or that of the language model it starts from.

    Raises:
        RecipeError: The recipe names neither, or the run it starts from has a recipe that cannot be read.
    """
    if recipe.data.tokenizer is not None:
        return recipe.data.tokenizer
    source = recipe.model.language.from_pretrained
    if source is None:
        raise RecipeError("data.tokenizer is not set, and there is no model.language.from_pretrained to take it from")
    path = expand_path(source)
    for folder in (path, *path.parents[:2]):
        if path_is(folder / "recipe.yaml", Path.is_file):
            return tokenizer_name(build(load_recipe(folder / "recipe.yaml")))
    return source


def expand_path(name: str) -> Path:
    """Return the path a name stands for, with `~` as the home folder where there is one."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def path_is(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Return whether a path is there and of a kind, such as `Path.is_dir`; what cannot be looked up is not."""
    try:
        return kind(path)
    except (OSError, ValueError):  # a name too long, a folder that must not be searched
        return False
