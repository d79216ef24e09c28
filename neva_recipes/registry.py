"""Finding recipes by name: built-in ones, those of a Python file, and those that installed packages offer.

A recipe is a function that returns a `fdl.Config[Recipe]`. A package offers one through its metadata:

    [project.entry-points."neva_recipes.recipes"]
    "mylab.digits" = "mylab.recipes:digits"
"""

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fiddle as fdl

from executors.pipeline import Pipeline
from neva_recipes.config import Recipe, RecipeError, parse_value, suggest
from neva_recipes.user_code import load_python_file, reporting_mistakes

__all__ = [
    "ENTRY_POINT_GROUP",
    "NoSuchRecipe",
    "RecipeEntry",
    "RecipeParameter",
    "find_pipeline",
    "find_recipe",
    "list_pipelines",
    "list_recipes",
]

ENTRY_POINT_GROUP = "neva_recipes.recipes"

_BUILT_IN_MODULES = ("llava", "neva", "gpt")


class NoSuchRecipe(RecipeError):
    """A name that is no recipe's."""


@dataclass(frozen=True)
class RecipeParameter:
    """A parameter of a recipe function, set on the command line as `name=value`.

    Attributes:
        name: Its name.
        annotation: Its type; `str` where the function does not say.
        default: Its default; `inspect.Parameter.empty` if it must be given.
        meaning: What the docstring of the function says about it; empty if nothing.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str


@dataclass(frozen=True)
class RecipeEntry:
    """A recipe that can be run by name.

    Attributes:
        name: What it is called on the command line, such as `llava.finetune`.
        origin: Where it comes from, for people.
        load: Imports what is needed and returns the recipe function.
    """

    name: str
    origin: str
    load: Callable[[], Callable[..., Any]]

    @property
    def description(self) -> str:
        """The docstring of the function, without the sections on its parameters and result."""
        text = inspect.getdoc(self.load()) or ""
        return re.split(r"^(?:Args|Returns|Raises):$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()

    @property
    def parameters(self) -> tuple[RecipeParameter, ...]:
        """The parameters that can be set by name, in the order of the function."""
        function = self.load()
        hints = _type_hints(function)
        return tuple(
            RecipeParameter(
                parameter.name,
                _parameter_type(parameter, hints),
                parameter.default,
                _parameter_meaning(inspect.getdoc(function) or "", parameter.name),
            )
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )

    def make(self, arguments: Mapping[str, str] | None = None) -> fdl.Buildable[Recipe]:
        """Return the recipe that the function makes.

        Args:
            arguments: Parameters of the function as command-line text.

        Raises:
            RecipeError: A parameter is missing or has a wrong value, the function fails, or returns something else.
        """
        recipe = self.call(arguments)
        if not (isinstance(recipe, fdl.Buildable) and fdl.get_callable(recipe) is Recipe):
            raise RecipeError(f"{self.name} returned {_describe(recipe)}: a recipe function returns a Config of Recipe")
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
        """Return what the function returns.

        Args:
            arguments: Parameters of the function as command-line text.

        Raises:
            RecipeError: A parameter is missing or has a wrong value, or the function fails.
        """
        arguments = arguments or {}
        values = {}
        for parameter in self.parameters:
            if parameter.name in arguments:
                values[parameter.name] = parse_value(
                    parameter.annotation, arguments[parameter.name], f"{self.name} {parameter.name}"
                )
            elif parameter.default is inspect.Parameter.empty:
                raise RecipeError(f"{self.name} needs {parameter.name}: add {parameter.name}=VALUE")
        function = self.load()
        with reporting_mistakes(inspect.getfile(function)):
            return function(**values)


def find_pipeline(name: str, file: str | Path | None = None) -> RecipeEntry | None:
    """Return the pipeline of that name; none if there is none.

    Args:
        name: Such as `llava.pipeline`; of `file`, the name of the function alone will do.
        file: A Python file whose functions that return a `Pipeline` count too.

    Raises:
        RecipeError: The file cannot be used.
    """
    in_file = _entries_of_file(Path(file), _returns_pipeline) if file is not None else []
    for entry in in_file:
        if name in (entry.name, _short_name(entry)):
            return entry
    return next((entry for entry in _built_in(_returns_pipeline) if entry.name == name), None)


def list_pipelines(file: str | Path | None = None) -> list[RecipeEntry]:
    """Return the pipelines of a Python file, if one is given, and the built-in ones.

    Raises:
        RecipeError: The file cannot be used.
    """
    in_file = _entries_of_file(Path(file), _returns_pipeline) if file is not None else []
    return [*in_file, *_built_in(_returns_pipeline)]


def find_recipe(name: str, file: str | Path | None = None, other_words: Iterable[str] = ()) -> RecipeEntry:
    """Return the recipe of that name.

    Args:
        name: Such as `llava.finetune`; of `file`, the name of the function alone will do.
        file: A Python file of recipes.
        other_words: Words that may have been meant instead, to be offered too.

    Raises:
        NoSuchRecipe: There is none of that name; the nearest names are offered.
        RecipeError: The file cannot be used, or several packages offer the name.
    """
    in_file = _recipes_of_file(Path(file)) if file is not None else []
    for entry in in_file:
        if name in (entry.name, _short_name(entry)):
            return entry
    found = [entry for entry in _built_in_recipes() if entry.name == name]
    found = found or [entry for entry in _recipes_of_packages() if entry.name == name]
    if len(found) > 1:
        origins = " and ".join(entry.origin for entry in found)
        raise RecipeError(f"{name}: offered by {origins}; uninstall one of them")
    if not found:
        known = [
            entry.name for entry in (*in_file, *_built_in_recipes(), *_recipes_of_packages(), *list_pipelines(file))
        ]
        hint = suggest(name, [*known, *map(_short_name, in_file), *other_words])
        raise NoSuchRecipe(f"{name}: no such recipe or command{hint}; nemo-run list shows all recipes")
    return found[0]


def _short_name(entry: RecipeEntry) -> str:
    return entry.name.rpartition(".")[2]


def list_recipes(file: str | Path | None = None) -> list[RecipeEntry]:
    """Return the recipes of a Python file, if one is given, the built-in ones, and those of installed packages.

    Raises:
        RecipeError: The file cannot be used.
    """
    in_file = _recipes_of_file(Path(file)) if file is not None else []
    return [*in_file, *_built_in_recipes(), *_recipes_of_packages()]


def _built_in_recipes() -> list[RecipeEntry]:
    return _built_in(_may_return_recipe)


def _built_in(is_meant: Callable[[Callable[..., Any]], bool]) -> list[RecipeEntry]:
    modules = [importlib.import_module(f"neva_recipes.{name}") for name in _BUILT_IN_MODULES]
    return [
        RecipeEntry(f"{short_name}.{name}", "built in", partial(_itself, function))
        for short_name, module in zip(_BUILT_IN_MODULES, modules, strict=True)
        for name, function in _public_functions(module.__dict__, module.__name__)
        if is_meant(function)
    ]


def _recipes_of_file(path: Path) -> list[RecipeEntry]:
    entries = _entries_of_file(path, _may_return_recipe)
    if not entries and not _entries_of_file(path, _returns_pipeline) and not _has_executors(path):
        raise RecipeError(f"{path}: has no recipe: expected a public function that returns a Config of Recipe")
    return entries


def _entries_of_file(path: Path, is_meant: Callable[[Callable[..., Any]], bool]) -> list[RecipeEntry]:
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


def _has_executors(path: Path) -> bool:
    from executors.profiles import python_profiles

    return bool(python_profiles(path))


def _recipes_of_packages() -> list[RecipeEntry]:
    # importlib.metadata takes as long to import as everything else here, and built-in recipes do without it.
    from importlib.metadata import entry_points

    entries = []
    for point in entry_points(group=ENTRY_POINT_GROUP):
        package = point.dist.name if point.dist else point.module
        entries.append(RecipeEntry(point.name, f"package {package}", partial(_load_entry_point, point)))
    return sorted(entries, key=lambda entry: entry.name)


def _itself(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _load_entry_point(point: Any) -> Callable[..., Any]:
    with reporting_mistakes(f"recipe {point.name} ({point.value})"):
        function = point.load()
    if not inspect.isfunction(function):
        raise RecipeError(f"recipe {point.name} ({point.value}): expected a function, got {_describe(function)}")
    return function


def _public_functions(namespace: Mapping[str, Any], module_name: str) -> list[tuple[str, Callable[..., Any]]]:
    """Return the functions of a module that are public and its own."""
    public = namespace.get("__all__")
    return [
        (name, value)
        for name, value in namespace.items()
        if inspect.isfunction(value)
        and (name in public if public is not None else not name.startswith("_") and value.__module__ == module_name)
    ]


def _may_return_recipe(function: Callable[..., Any]) -> bool:
    """Return whether a function is not declared to return something else than a recipe."""
    annotation = _type_hints(function).get("return", Any)
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if annotation is Any:
        return True
    return isinstance(origin, type) and issubclass(origin, fdl.Buildable) and arguments in ((), (Recipe,))


def _returns_pipeline(function: Callable[..., Any]) -> bool:
    return _type_hints(function).get("return") is Pipeline


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}  # Annotations that name what is not there do not keep a function from being called.


def _parameter_type(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    if parameter.name in hints:
        return hints[parameter.name]
    return type(parameter.default) if isinstance(parameter.default, (bool, int, float)) else str


def _parameter_meaning(docstring: str, name: str) -> str:
    arguments = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    found = arguments and re.search(rf"^(\s+){name}\b[^:\n]*:(.*(?:\n\1\s+.*)*)", arguments[1], re.MULTILINE)
    return " ".join(found[2].split()) if found else ""


def _describe(value: Any) -> str:
    if isinstance(value, fdl.Buildable):
        return f"a {type(value).__name__} of {fdl.get_callable(value).__name__}"
    return f"a value of type {type(value).__name__}"
