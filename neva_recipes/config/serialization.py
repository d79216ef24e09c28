"""Recipes as plain data and as YAML files, which are complete and readable and load back to the same recipe."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import fiddle as fdl
import yaml

from neva_recipes.config._history import DEFAULT_OF, value_from
from neva_recipes.config.errors import RecipeError, reading_problem
from neva_recipes.config.recipe import Recipe
from neva_recipes.config.tree import Draft, DraftNode, build
from neva_recipes.config.values.nearness import suggest
from neva_recipes.config.values.node import field_types, means_none, node_types, path_as_text
from neva_recipes.config.values.numbers import FLOAT, INTEGER
from neva_recipes.config.values.paths import expand_path
from neva_recipes.terminal import visible

PlainTable: TypeAlias = dict[str, Any]
"""A table of plain data, as JSON, YAML and TOML have it: texts, numbers, lists and further tables by name.

Its values are `Any`, for they come from a file that anybody may have written: whoever uses one has checked it.
"""

__all__ = [
    "CLASS_KEY",
    "PlainTable",
    "load_recipe",
    "read_yaml",
    "read_yaml_text",
    "recipe_from_plain",
    "recipe_from_yaml",
    "recipe_to_plain",
    "recipe_to_yaml",
]

CLASS_KEY = "class"
"""Key that names the class of a group, if several classes are possible."""


# libyaml's classes, if PyYAML was built with it, are several times as fast.
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _KeysOnce(yaml.constructor.SafeConstructor):
    """Refuses a key that appears twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Loader(_KeysOnce, yaml.SafeLoader):
    """Reads YAML as people mean it: 2e-5 is a number, yes and 2024-01-01 are text, a key appears once."""


class _FastLoader(_KeysOnce, _SafeLoader):  # type: ignore[misc]
    """Reads the same as `_Loader`, which has better error messages."""


class _Dumper(_SafeDumper):  # type: ignore[misc]
    """Quotes every string that `_Loader` or another YAML reader would not read as a string."""

    def represent_str(self, text: str) -> Any:
        """Return the node of a string; one with terminal control characters gets double quotes, which allow escapes."""
        style = None if visible(text) == text else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


# Text that is not a number here but is one for another reader (010, 0x10) is quoted too.
_ANY_NUMBER = r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?"
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", INTEGER, list("-+0123456789")),
    ("float", FLOAT + r"|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)
_FastLoader.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_ANY_NUMBER})$"), list("-+.0123456789"))


def recipe_to_yaml(recipe: Draft[Recipe]) -> str:
    """Return a recipe as YAML text.

    Raises:
        RecipeError: The recipe is not valid; only valid recipes are written.
    """
    text: str = yaml.dump(recipe_to_plain(recipe), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    # PyYAML takes bidirectional marks for printable; `_Dumper` has put strings with them in double quotes.
    return visible(text)


def recipe_to_plain(recipe: Draft[Recipe]) -> PlainTable:
    """Return a recipe as nested dictionaries of every field; a group with several possible classes has a `class`.

    Raises:
        RecipeError: The recipe is not valid.
    """
    build(recipe)
    return _to_plain(recipe)


def _to_plain(node: DraftNode) -> PlainTable:
    cls: Any = fdl.get_callable(node)
    plain: PlainTable = {}
    for name, annotation in field_types(cls).items():
        value = node.__arguments__.get(name, getattr(cls, name, None))
        if isinstance(value, fdl.Buildable):
            child = _to_plain(value)
            if len(node_types(annotation)) > 1:
                child = {CLASS_KEY: fdl.get_callable(value).__name__, **child}
            value = child
        plain[name] = path_as_text(annotation, value)
    return plain


def recipe_from_yaml(text: str, source: str = "recipe") -> Draft[Recipe]:
    """Return the recipe that YAML text describes.

    Args:
        text: The text that `recipe_to_yaml` wrote, possibly edited.
        source: Name of the file, for messages.

    Raises:
        RecipeError: The text is not YAML, or a field is unknown, missing, or holds a wrong value.
    """
    plain, lines = read_yaml(text, source)
    return recipe_from_plain(plain, source, lines)


def read_yaml(text: str, source: str) -> tuple[Any, dict[str, int]]:
    """Return the content of YAML text as plain data, and the line of each key by its dotted path.

    Args:
        text: The text.
        source: Name of the file, for messages.

    Raises:
        RecipeError: The text is not YAML, or a key appears twice.
    """
    text = text.removeprefix("\ufeff")  # some editors write a byte order mark
    try:
        try:
            node, plain = _read(_FastLoader(text))  # type: ignore[call-arg]
        except yaml.YAMLError:
            node, plain = _read(_Loader(text))
        return plain, dict(_lines(node, ""))
    except yaml.YAMLError as error:
        raise RecipeError(f"{source}: not valid YAML: {_first_line(error)}") from None
    except ValueError:  # more digits than Python turns into an integer
        raise RecipeError(
            f"{source}: cannot be read as YAML: it holds a number of thousands of digits, which no field takes"
        ) from None
    except RecursionError:
        raise RecipeError(
            f"{source}: cannot be read as YAML: a group holds itself, or groups lie too deep in each other"
        ) from None


def _read(loader: Any) -> tuple[yaml.Node | None, Any]:
    """Return the single document of a text, as a YAML node and as plain data."""
    node = loader.get_single_node()
    return node, None if node is None else loader.construct_document(node)


def recipe_from_plain(plain: object, source: str = "recipe", lines: Mapping[str, int] | None = None) -> Draft[Recipe]:
    """Return the recipe that nested dictionaries describe.

    Args:
        plain: The result of `recipe_to_plain`, possibly changed.
        source: Where it comes from, for messages and for the history of the fields.
        lines: Line of each field in the source, by dotted path.

    Raises:
        RecipeError: A field is unknown, missing, or holds a wrong value.
    """
    try:
        recipe: Recipe = _from_plain(Recipe, plain, "", source, lines or {})
        build(recipe)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None
    return recipe


def _lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield the dotted path of every key, and its line, counted from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            yield path, key.start_mark.line + 1
            yield from _lines(value, f"{path}.")


def _first_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


_LATER_FIELDS = {
    ("OptimConfig", "lr_decay_steps"),
    ("OptimConfig", "lr_of"),
    ("LanguageConfig", "family"),
    ("LanguageConfig", "sliding_window"),
    ("LanguageConfig", "rope"),
    ("LanguageConfig", "lora"),
    ("LanguageConfig", "quantize"),
    ("VisionConfig", "lora"),
    ("VisionConfig", "position_image_size"),
    ("TextDataConfig", "blend"),
    ("TrainerConfig", "val_before_training"),
}
"""Fields that recipes saved by earlier versions lack; with the defaults such a recipe keeps its meaning."""


def _from_plain(cls: Any, plain: Any, path: str, source: str, lines: Mapping[str, int]) -> DraftNode:
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
        if name not in plain and (cls.__name__, name) in _LATER_FIELDS:
            with value_from(f"{DEFAULT_OF}{cls.__name__}"):
                setattr(node, name, _default(cls.__dataclass_fields__[name]))
            continue
        if name not in plain:
            raise RecipeError(f"{where} is missing; a saved recipe names every field")
        value = None if means_none(annotation, plain[name]) else plain[name]
        if isinstance(value, dict) and node_types(annotation):
            value = _from_plain(*_choose_class(node_types(annotation), value, where), where, source, lines)
        with value_from(source, lines.get(where, 0)):
            setattr(node, name, value)
    return node


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _choose_class(classes: tuple[type, ...], plain: dict[str, object], path: str) -> tuple[type, PlainTable]:
    if len(classes) == 1:
        return classes[0], plain
    rest = {key: value for key, value in plain.items() if key != CLASS_KEY}
    for cls in classes:
        if cls.__name__ == plain.get(CLASS_KEY):
            return cls, rest
    names = ", ".join(cls.__name__ for cls in classes)
    raise RecipeError(f"{path}.{CLASS_KEY}={plain.get(CLASS_KEY)!r}: expected one of {names}")


def load_recipe(path: str | Path) -> Draft[Recipe]:
    """Return the recipe saved in a YAML file.

    Raises:
        RecipeError: The file cannot be read or does not hold a valid recipe.
    """
    return recipe_from_yaml(read_yaml_text(path), str(path))


def read_yaml_text(path: str | Path) -> str:
    """Return the text of a YAML file.

    Raises:
        RecipeError: The file cannot be read, or is not UTF-8.
    """
    try:
        return expand_path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: {reading_problem(error)}") from None
