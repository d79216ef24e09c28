"""Recipes as plain data and YAML files that are complete, readable, diffable, and load back to the same recipe."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl
import yaml

from neva_recipes.config._history import value_from
from neva_recipes.config._node import field_types, node_types, suggest
from neva_recipes.config.errors import RecipeError
from neva_recipes.config.recipe import Recipe
from neva_recipes.config.tree import build

__all__ = ["load_recipe", "recipe_from_plain", "recipe_from_yaml", "recipe_to_plain", "recipe_to_yaml"]

_CLASS_KEY = "class"


# Those of libyaml, where PyYAML was built with it, are several times as fast.
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _KeysOnce(yaml.constructor.SafeConstructor):
    """Refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Loader(_KeysOnce, yaml.SafeLoader):
    """Reads YAML as people mean it: 2e-5 is a number, yes and 2024-01-01 are text, a key stands once."""


class _FastLoader(_KeysOnce, _SafeLoader):
    """Reads the same; of what is wrong the other says more."""


class _Dumper(_SafeDumper):
    """Quotes every string that `_Loader` or another YAML reader would take for something else."""


_NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?"
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9]\d*)", list("-+0123456789")),
    ("float", _NUMBER + r"|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)
_FastLoader.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER + "$"), list("-+.0123456789"))


def recipe_to_yaml(recipe: fdl.Buildable[Recipe]) -> str:
    """Return a recipe as YAML text.

    Raises:
        RecipeError: The recipe is not valid; only valid recipes are written.
    """
    return yaml.dump(recipe_to_plain(recipe), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def recipe_to_plain(recipe: fdl.Buildable[Recipe]) -> dict[str, Any]:
    """Return a recipe as nested dictionaries of every field; a group of one class out of several says `class`.

    Raises:
        RecipeError: The recipe is not valid.
    """
    build(recipe)
    return _to_plain(recipe)


def _to_plain(node: fdl.Buildable[Any]) -> dict[str, Any]:
    cls: Any = fdl.get_callable(node)
    plain: dict[str, Any] = {}
    for name, annotation in field_types(cls).items():
        value = node.__arguments__.get(name, getattr(cls, name, None))
        if isinstance(value, fdl.Buildable):
            child = _to_plain(value)
            if len(node_types(annotation)) > 1:
                child = {_CLASS_KEY: fdl.get_callable(value).__name__, **child}
            value = child
        plain[name] = value
    return plain


def recipe_from_yaml(text: str, source: str = "recipe") -> fdl.Config[Recipe]:
    """Return the recipe that YAML text describes.

    Args:
        text: What `recipe_to_yaml` wrote, possibly edited.
        source: Name of the file, for messages.

    Raises:
        RecipeError: The text is not YAML, or a field is unknown, missing, or holds a wrong value.
    """
    try:
        try:
            node, plain = _read(_FastLoader(text))  # type: ignore[call-arg]
        except yaml.YAMLError:
            node, plain = _read(_Loader(text))
        lines = dict(_lines(node, ""))
    except yaml.YAMLError as error:
        raise RecipeError(f"{source}: not valid YAML: {_first_line(error)}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a group that holds itself
        raise RecipeError(f"{source}: cannot be read as YAML: {error}") from None
    return recipe_from_plain(plain, source, lines)


def _read(loader: Any) -> tuple[yaml.Node | None, Any]:
    """Return the one document of a text, as it is written and as plain data."""
    node = loader.get_single_node()
    return node, None if node is None else loader.construct_document(node)


def recipe_from_plain(plain: Any, source: str = "recipe", lines: Mapping[str, int] | None = None) -> fdl.Config[Recipe]:
    """Return the recipe that nested dictionaries describe.

    Args:
        plain: What `recipe_to_plain` returned, possibly changed.
        source: Where it comes from, for messages and for the history of the fields.
        lines: Line of each field in the source, by dotted path.

    Raises:
        RecipeError: A field is unknown, missing, or holds a wrong value.
    """
    try:
        recipe = _from_plain(Recipe, plain, "", source, lines or {})
        build(recipe)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None
    return recipe


def _lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield the dotted path of every key, and its line from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            yield path, key.start_mark.line + 1
            yield from _lines(value, f"{path}.")


def _first_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _from_plain(cls: Any, plain: Any, path: str, source: str, lines: Mapping[str, int]) -> fdl.Config[Any]:
    if not isinstance(plain, dict):
        raise RecipeError(f"{path or 'the file'}: expected a group of fields, got {type(plain).__name__}")
    types = field_types(cls)
    for key in plain:
        if key not in types:
            hint = suggest(str(key), types) or f"; expected one of {', '.join(types)}"
            raise RecipeError(f"{path}{'.' if path else ''}{key}: no such field{hint}")
    node = fdl.Config(cls)
    for name, annotation in types.items():
        where = f"{path}.{name}" if path else name
        if name not in plain:
            raise RecipeError(f"{where} is missing; a saved recipe names every field")
        value = plain[name]
        if isinstance(value, dict) and node_types(annotation):
            value = _from_plain(*_choose_class(node_types(annotation), value, where), where, source, lines)
        with value_from(source, lines.get(where, 0)):
            setattr(node, name, value)
    return node


def _choose_class(classes: tuple[type, ...], plain: dict[str, Any], path: str) -> tuple[type, dict[str, Any]]:
    if len(classes) == 1:
        return classes[0], plain
    rest = {key: value for key, value in plain.items() if key != _CLASS_KEY}
    for cls in classes:
        if cls.__name__ == plain.get(_CLASS_KEY):
            return cls, rest
    names = ", ".join(cls.__name__ for cls in classes)
    raise RecipeError(f"{path}.{_CLASS_KEY}={plain.get(_CLASS_KEY)!r}: expected one of {names}")


def load_recipe(path: str | Path) -> fdl.Config[Recipe]:
    """Return the recipe saved in a YAML file.

    Raises:
        RecipeError: The file cannot be read or does not hold a valid recipe.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    return recipe_from_yaml(text, str(path))
