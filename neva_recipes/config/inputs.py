"""The files that a recipe names: the fields that name them, and their places."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from neva_recipes.config.data import LlavaDataConfig
from neva_recipes.config.errors import RecipeError
from neva_recipes.config.model import RANDOM
from neva_recipes.config.recipe import Recipe
from neva_recipes.config.serialization import load_recipe
from neva_recipes.config.tree import Draft, Field, build, iterate_fields, owned
from neva_recipes.config.values.node import ConfigNode
from neva_recipes.config.values.paths import expand_path, is_here_path, path_is
from neva_recipes.config.values.text import is_list, listed_paths
from neva_recipes.run_directory.layout import RECIPE_FILE

__all__ = [
    "MODEL_INPUTS",
    "image_folder_of",
    "input_paths",
    "model_paths",
    "recipe_of_run",
    "tokenizer_name",
    "with_absolute_inputs",
]

T = TypeVar("T", bound=ConfigNode)

MODEL_INPUTS = ("tokenizer", "from_pretrained")
"""Fields that name a few files, which may be links into another folder."""


_DATA_FILES = ("data_path", "validation_data_path")


def with_absolute_inputs(recipe: Draft[T]) -> Draft[T]:
    """Return a copy of a recipe, or of a tool, in which every existing file and folder has its absolute path.

    A run can then be resumed, chatted with and exported from any folder. Names that do not exist here may be names on
    the Hugging Face hub, and stay as they are.
    """
    resolved = owned(recipe)
    for field in iterate_fields(recipe):
        *groups, name = field.path.split(".")
        if not is_here_path(field.annotation):
            continue
        named = _names_in(field)
        absolute = [_absolute(name) for name in named]
        if absolute != named or (len(named) > 1 and isinstance(field.value, str) and any(map(_is_there, named))):
            node: Any = resolved
            for group in groups:
                node = getattr(node, group)
            setattr(node, name, absolute[0] if isinstance(field.value, str) and len(absolute) == 1 else absolute)
    return resolved


def _names_in(field: Field) -> list[str]:
    """Return the paths that a field names: one, or several if it takes a list."""
    if field.path.endswith(".from_pretrained") and field.value == RANDOM:
        return []
    if isinstance(field.value, str) and not is_list(field.annotation):
        return [field.value] if field.value else []
    return listed_paths(field.value) if isinstance(field.value, str | list) else []


def _is_there(name: str) -> bool:
    return bool(name) and path_is(expand_path(name))


def _absolute(name: str) -> str:
    return str(expand_path(name).absolute()) if _is_there(name) and not Path(name).is_absolute() else name


def input_paths(recipe: Draft[Recipe], fields: tuple[str, ...] | None = None) -> list[Path]:
    """Return every local file and folder that a process needs to read for a recipe, as absolute paths.

    They include the folders that links in its models point to, and the tokenizers named by the recipes of the runs that
    it starts from.

    Args:
        recipe: The recipe.
        fields: Names of the fields to look at; `None` means all that take a path of this machine.

    Raises:
        RecipeError: The recipe of a run that it starts from cannot be read.
    """
    found: list[Path] = []
    has_no_folder = getattr(recipe.data, "image_folder", "") is None
    for field in iterate_fields(recipe):
        name = field.path.split(".")[-1]
        is_asked_for = is_here_path(field.annotation) if fields is None else name in fields
        for path in (expand_path(named).absolute() for named in _names_in(field) if is_asked_for and _is_there(named)):
            found += model_paths(path) if name == "from_pretrained" else [path]
            found += _linked(path) if name == "tokenizer" else []
            # The images are beside the file, and the tokens beside their index.
            found += [path.parent] if name in _DATA_FILES and (has_no_folder or path.suffix == ".idx") else []
    return list(dict.fromkeys(found))


def model_paths(model: Path) -> list[Path]:
    """Return every local file and folder that a process needs to read for a model, as absolute paths.

    Args:
        model: Absolute path of a Hugging Face directory, a run or a checkpoint.

    Raises:
        RecipeError: The recipe of the run cannot be read.
    """
    found = [model, *_linked(model)]
    for folder in _with_recipe(model):
        found += [folder, *input_paths(load_recipe(folder / RECIPE_FILE), MODEL_INPUTS)]
    return list(dict.fromkeys(found))


def _linked(folder: Path) -> list[Path]:
    """Return the folders that links in a folder point to."""
    entries = folder.iterdir() if path_is(folder, Path.is_dir) else ()
    return [entry.resolve().parent for entry in entries if entry.is_symlink()]


def tokenizer_name(recipe: Recipe) -> str:
    """Return where a recipe's tokenizer comes from: its own, or that of the language model it starts from.

    Raises:
        RecipeError: The recipe names neither, or the recipe of the run it starts from cannot be read.
    """
    if recipe.data.tokenizer is not None:
        return recipe.data.tokenizer
    source = recipe.model.language.source
    if source is None:
        raise RecipeError("data.tokenizer is not set, and there is no model.language.from_pretrained to take it from")
    saved = recipe_of_run(source)
    return source if saved is None else tokenizer_name(saved)


def recipe_of_run(source: str) -> Recipe | None:
    """Return the recipe of the run whose directory or checkpoint a path names; `None` if it names neither.

    Raises:
        RecipeError: The recipe cannot be read.
    """
    folder = next(_with_recipe(expand_path(source)), None)
    return None if folder is None else build(load_recipe(folder / RECIPE_FILE))


def _with_recipe(path: Path) -> Iterator[Path]:
    """Yield the folders with a recipe: of a checkpoint, the checkpoint, its folder and its run; of a run, the run."""
    return (folder for folder in (path, *path.parents[:2]) if path_is(folder / RECIPE_FILE, Path.is_file))


def image_folder_of(data: LlavaDataConfig, data_file: Path) -> Path:
    """Return the folder that the image names of a data file are relative to: the given one, or that of the file."""
    return expand_path(data.image_folder) if data.image_folder else data_file.parent
