"""Finds recipes by name: built-in ones, those of Python files, and those of installed packages.

A recipe is a function that returns a `Draft[Recipe]`. A package offers a recipe by an entry point:

    [project.entry-points."neva_recipes.recipes"]
    "mylab.digits" = "mylab.recipes:digits"
"""

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import fiddle as fdl

from neva_recipes._parameters import RecipeParameter, argument_values, parameters_of, type_hint, untyped_texts
from neva_recipes.config import (
    ConfigNode,
    Draft,
    Recipe,
    RecipeError,
    drafted_classes,
    makes_drafts,
    near_words,
    read_typed_texts,
)
from neva_recipes.pipeline import Pipeline
from neva_recipes.user_code import (
    Files,
    PackageObject,
    call_user_function,
    each_file_once,
    load_python_file,
    package_objects,
    without_cache,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "NoSuchRecipe",
    "RecipeEntry",
    "RecipeParameter",
    "find_pipeline",
    "find_recipe",
    "is_built_in",
    "list_pipelines",
    "list_recipes",
    "short_names",
]

ENTRY_POINT_GROUP = "neva_recipes.recipes"

_MOST_OFFERED = 5

_BUILT_IN_MODULES = ("llava", "neva", "gpt")


class NoSuchRecipe(RecipeError):
    """No recipe has the given name."""


@dataclass(frozen=True)
class RecipeEntry:
    """A recipe that can be run by name.

    Attributes:
        name: Its name on the command line, such as `llava.finetune`.
        origin: Where it comes from, as shown to users.
        load: Imports and returns the recipe function.
    """

    name: str
    origin: str
    load: Callable[[], Callable[..., Any]]

    @property
    def short_name(self) -> str:
        """The name of the function alone, which is enough for one in a Python file."""
        return self.name.rpartition(".")[2]

    @property
    def description(self) -> str:
        """The docstring of the function, without the sections about its parameters and result."""
        text = inspect.getdoc(self.load()) or ""
        return re.split(r"^(?:Args|Returns|Raises):$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()

    @property
    def parameters(self) -> tuple[RecipeParameter, ...]:
        """All parameters of the function, in order; those with an `obstacle` cannot be set on the command line."""
        return parameters_of(self.load())

    def lacking(self, overrides: Mapping[str, str]) -> list[str]:
        """Return the parameters that must be given on the command line and are not among the overrides."""
        needed = [one for one in self.parameters if one.default is inspect.Parameter.empty and not one.obstacle]
        return [one.name for one in needed if not any(map(one.takes, overrides))]

    def split(self, overrides: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the command-line overrides of parameters, and the other overrides, which set fields."""
        parameters = self.parameters
        taken = {key: text for key, text in overrides.items() if any(one.takes(key) for one in parameters)}
        return taken, {key: text for key, text in overrides.items() if key not in taken}

    def make(self, arguments: Mapping[str, str] | None = None) -> Draft[Recipe]:
        """Return the recipe that the function makes.

        Args:
            arguments: Parameters of the function as command-line text.

        Raises:
            RecipeError: A parameter is missing or has a wrong value, the function fails, or returns something else.
        """
        made = self.call(arguments)
        if not (isinstance(made, fdl.Buildable) and fdl.get_callable(made) is Recipe):
            raise RecipeError(f"{self.name} returned {_describe(made)}: a recipe function returns a Draft of Recipe")
        recipe: Recipe = made
        return recipe

    def make_pipeline(self, arguments: Mapping[str, str] | None = None) -> Pipeline:
        """Return the pipeline that the function makes.

        Args:
            arguments: Parameters of the function as command-line text.

        Raises:
            RecipeError: A parameter is missing or has a wrong value, the function fails, or returns something else.
        """
        pipeline = self.call(arguments)
        if not isinstance(pipeline, Pipeline):
            raise RecipeError(f"{self.name} returned {_describe(pipeline)}: it says that it returns a Pipeline")
        return pipeline

    def call(self, arguments: Mapping[str, str] | None = None) -> Any:
        """Return a copy of the function's result.

        Args:
            arguments: Parameters of the function as command-line text.

        Raises:
            RecipeError: A parameter is missing or has a wrong value, or the function fails.
        """
        parameters = self.parameters
        values = argument_values(self.name, parameters, arguments or {})
        function = self.load()
        if inspect.iscoroutinefunction(function):  # a call would only return a coroutine
            raise RecipeError(f"{self.name} is an async function: a recipe function returns its recipe, write def")
        made = call_user_function(function, values)
        texts = untyped_texts(self.name, parameters, arguments or {})
        for draft in [stage.work for stage in made.stages] if isinstance(made, Pipeline) else [made]:
            if isinstance(draft, fdl.Buildable):
                read_typed_texts(draft, texts)
        return made


def find_pipeline(name: str, files: Files = ()) -> RecipeEntry | None:
    """Return the pipeline of this name; `None` if there is none.

    Args:
        name: Such as `llava.pipeline`; for functions in `files`, the name of the function is enough.
        files: Python files to search too, for functions that return a `Pipeline`.

    Raises:
        RecipeError: A file cannot be used, or several files have a function of this name.
    """
    if (entry := _named(name, _entries_of_files(files, _returns_pipeline))) is not None:
        return entry
    return next((entry for entry in _built_in(_returns_pipeline) if entry.name == name), None)


def list_pipelines(files: Files = ()) -> list[RecipeEntry]:
    """Return the pipelines of Python files, and the built-in ones.

    Raises:
        RecipeError: A file cannot be used.
    """
    return [*_entries_of_files(files, _returns_pipeline), *_built_in(_returns_pipeline)]


def find_recipe(name: str, files: Files = (), other_words: Mapping[str, Sequence[str]] | None = None) -> RecipeEntry:
    """Return the recipe of this name.

    Args:
        name: Such as `llava.finetune`; for functions in `files`, the name of the function is enough.
        files: Python files of recipes.
        other_words: Other words that the user may have meant, each with its suggestions.

    Raises:
        NoSuchRecipe: No recipe has this name; the message suggests similar names.
        RecipeError: A file cannot be used, or several files or packages offer the name.
    """
    in_file = _recipes_of_files(files)
    if (entry := _named(name, in_file)) is not None:
        return entry
    built_in = _built_in_recipes()
    found = [entry for entry in built_in if entry.name == name]
    found = found or [entry for entry in _recipes_of_packages() if entry.name == name]
    if len(found) > 1:
        origins = " and ".join(entry.origin for entry in found)
        raise RecipeError(f"{name}: offered by {origins}; uninstall one of them")
    if not found:
        known = [entry.name for entry in (*in_file, *built_in, *_recipes_of_packages(), *list_pipelines(files))]
        hint = _hint(name, known, [entry.short_name for entry in in_file], other_words or {})
        own = "" if files else ", and --recipes FILE adds those of a Python file"
        raise NoSuchRecipe(f"{name}: no such recipe or command{hint}; nemo-run list shows all recipes{own}")
    return found[0]


def _hint(name: str, known: Sequence[str], short: Iterable[str], others: Mapping[str, Sequence[str]]) -> str:
    """Return suggestions: names that have the word as a part, else those in `others`, else similar names."""
    if found := [full for full in known if name in full.split(".")]:
        return _offer(found)
    if name in others:
        return _offer(others[name])
    real = [*known, *short, *(word for word, meant in others.items() if (*meant,) == (word,))]
    near = near_words(name, real)
    return _offer(near or [word for near in near_words(name, others, most=1) for word in others[near]])


def _offer(names: Iterable[str]) -> str:
    offered = list(dict.fromkeys(names))[:_MOST_OFFERED]
    return f" (did you mean {', '.join(offered)}?)" if offered else ""


def _named(name: str, entries: Iterable[RecipeEntry]) -> RecipeEntry | None:
    """Return the entry of this full or short name; full names take precedence."""
    entries = list(entries)
    for is_meant in (lambda entry: entry.name == name, lambda entry: entry.short_name == name):
        found = list(filter(is_meant, entries))
        if len(found) > 1:
            origins = " and ".join(entry.origin for entry in found)
            names = dict.fromkeys(entry.name for entry in found)
            remedy = f"write {' or '.join(names)}" if len(names) > 1 else "rename one of the files"
            raise RecipeError(f"{name}: in {origins}; {remedy}")
        if found:
            return found[0]
    return None


def list_recipes(files: Files = ()) -> list[RecipeEntry]:
    """Return the recipes of Python files, the built-in ones, and those of installed packages.

    Raises:
        RecipeError: A file cannot be used.
    """
    return [*_recipes_of_files(files), *_built_in_recipes(), *_recipes_of_packages()]


def short_names(files: Files = ()) -> list[str]:
    """Return the short names of the recipes and pipelines of Python files, without those that several of them have.

    Raises:
        RecipeError: A file cannot be used.
    """
    entries = [*_recipes_of_files(files), *_entries_of_files(files, _returns_pipeline)]
    counts = Counter(entry.short_name for entry in entries)
    return [name for name, count in counts.items() if count == 1]


def is_built_in(name: object) -> bool:
    """Return whether a built-in recipe has this name."""
    return any(entry.name == name for entry in _built_in_recipes())


def _built_in_recipes() -> list[RecipeEntry]:
    return _built_in(_may_return_recipe)


def _built_in(is_meant: Callable[[Callable[..., object]], bool]) -> list[RecipeEntry]:
    modules = [importlib.import_module(f"neva_recipes.{name}") for name in _BUILT_IN_MODULES]
    return [
        RecipeEntry(f"{short_name}.{name}", "built in", partial(_itself, function))
        for short_name, module in zip(_BUILT_IN_MODULES, modules, strict=True)
        for name, function in _public_functions(module.__dict__, module.__name__)
        if is_meant(function)
    ]


def _recipes_of_files(files: Files) -> list[RecipeEntry]:
    return [entry for path in each_file_once(files) for entry in _recipes_of_file(path)]


def _entries_of_files(files: Files, is_meant: Callable[[Callable[..., object]], bool]) -> list[RecipeEntry]:
    return [entry for path in each_file_once(files) for entry in _entries_of_file(path, is_meant)]


def _recipes_of_file(path: Path) -> list[RecipeEntry]:
    entries = _entries_of_file(path, _may_return_recipe)
    if not entries and not _entries_of_file(path, _returns_pipeline) and not _has_profiles(path):
        raise RecipeError(f"{path}: has no recipe: expected a public function that returns a Draft of Recipe")
    return entries


def _entries_of_file(path: Path, is_meant: Callable[[Callable[..., object]], bool]) -> list[RecipeEntry]:
    module = load_python_file(path)
    entries = [
        RecipeEntry(f"{path.stem}.{name}", str(path), partial(_itself, function))
        for name, function in _public_functions(module.__dict__, module.__name__)
        if is_meant(function)
    ]
    taken = {entry.name for entry in (*_built_in_recipes(), *_built_in(_returns_pipeline))}
    for entry in entries:
        if entry.name in taken:
            raise RecipeError(f"{path}: {entry.name} is the name of a built-in recipe: rename the file")
    return entries


def _has_profiles(path: Path) -> bool:
    module = load_python_file(path)
    return any(_returns_executor(function) for _, function in _public_functions(module.__dict__, module.__name__))


def _recipes_of_packages() -> list[RecipeEntry]:
    return [
        RecipeEntry(offered.name, f"package {offered.package}", partial(_load_offered, offered))
        for offered in package_objects(ENTRY_POINT_GROUP)
    ]


def _itself(function: Callable[..., object]) -> Callable[..., Any]:
    return function


def _load_offered(offered: PackageObject) -> Callable[..., Any]:
    if any(entry.name == offered.name for entry in (*_built_in_recipes(), *_built_in(_returns_pipeline))):
        raise RecipeError(f"{offered.name} is the name of a built-in recipe, which goes before it")
    function = without_cache(offered.load("recipe"))
    if not inspect.isfunction(function):
        raise RecipeError(f"recipe {offered.name} ({offered.value}): expected a function, got {_describe(function)}")
    return function


def _public_functions(namespace: Mapping[str, Any], module_name: str) -> list[tuple[str, Callable[..., Any]]]:
    """Return the public functions that a module defines."""
    public = namespace.get("__all__")
    return [
        (name, value)
        for name, value in zip(namespace, map(without_cache, namespace.values()), strict=True)
        if type(value) is FunctionType
        and (name in public if public is not None else not name.startswith("_") and value.__module__ == module_name)
    ]


def _may_return_recipe(function: Callable[..., object]) -> bool:
    """Return whether a function is annotated to return a recipe, or has no annotation of its result."""
    annotation = _result_type(function)
    return annotation is Any or drafted_classes(annotation) in ((), (Recipe,))


def _returns_pipeline(function: Callable[..., object]) -> bool:
    return _result_type(function) is Pipeline


def _returns_executor(function: Callable[..., object]) -> bool:
    """Return whether a function makes a profile, that is, an executor (recognized by its `root`)."""
    return makes_drafts(_result_type(function), lambda cls: issubclass(cls, ConfigNode) and cls.root == "executor")


def _result_type(function: Callable[..., object]) -> Any:
    try:
        return type_hint(function, "return")
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any  # a function with an invalid annotation can still be called


def _describe(value: object) -> str:
    if isinstance(value, fdl.Buildable):
        kind = "Draft" if isinstance(value, fdl.Config) else type(value).__name__
        return f"a {kind} of {fdl.get_callable(value).__name__}"
    return f"a value of type {type(value).__name__}"
