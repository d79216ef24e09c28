"""Files with only some fields, which override those of a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl

from neva_recipes.config._history import value_from
from neva_recipes.config.errors import RecipeError
from neva_recipes.config.recipe import Recipe
from neva_recipes.config.serialization import CLASS_KEY, read_yaml, read_yaml_text
from neva_recipes.config.tree import Draft, DraftNode, config, made_by_its_fields
from neva_recipes.config.values.nearness import suggest
from neva_recipes.config.values.node import check_value, field_types, node_types

__all__ = ["lay_over"]


def lay_over(recipe: Draft[Recipe], path: str | Path, elsewhere: Mapping[str, str] | None = None) -> None:
    """Set the fields of a recipe that a YAML file names, in place; the other fields stay.

    Args:
        recipe: The recipe.
        path: The file.
        elsewhere: For keys that might be taken for fields but are none: where they belong, by key.

    Raises:
        RecipeError: The file cannot be read, names an unknown field, or holds a wrong value; with file and line.
    """
    plain, lines = read_yaml(read_yaml_text(path), str(path))
    if plain is None:
        raise RecipeError(f"{path}: names no field")
    _Overlay(str(path), lines, elsewhere or {}).apply(recipe, plain, "")


class _Overlay:
    """A file that overrides fields of a recipe."""

    def __init__(self, source: str, lines: Mapping[str, int], elsewhere: Mapping[str, str]) -> None:
        self._source = source
        self._lines = lines
        self._elsewhere = elsewhere

    def apply(self, node: DraftNode, plain: object, prefix: str) -> None:
        """Set the fields of a group."""
        cls: Any = fdl.get_callable(node)
        group = prefix.rstrip(".")
        if not isinstance(plain, dict):
            raise self._error(group, f"{': ' if group else ''}expected a group of fields, got {type(plain).__name__}")
        types = field_types(cls)
        for key, value in plain.items():
            where = f"{prefix}{key}"
            if key == CLASS_KEY and prefix:
                if value != cls.__name__:
                    raise self._error(where, f"={value!r}: {group} of this recipe is a {cls.__name__}, and stays one")
            elif key not in types:
                raise self._error(where, f": {self._no_such_field(str(key), prefix, types)}")
            else:
                self._set(node, key, value, types[key], where)

    def _set(self, node: DraftNode, key: str, value: object, annotation: object, where: str) -> None:
        child = node.__arguments__.get(key)
        if isinstance(child, fdl.Buildable) and value is not None:
            self.apply(child, value, f"{where}.")
            return
        if isinstance(value, dict) and (made := made_by_its_fields(annotation)):
            child = config(made)
            self.apply(child, value, f"{where}.")
            setattr(node, key, child)
            return
        if isinstance(value, dict) and node_types(annotation):
            raise self._error(where, " is none in this recipe, so it has no fields")
        try:
            checked = check_value(annotation, value, where)
        except RecipeError as error:
            raise self._error(where, str(error).removeprefix(where)) from None
        with value_from(self._source, self._lines.get(where, 0)):
            setattr(node, key, checked)

    def _no_such_field(self, key: str, prefix: str, types: Mapping[str, object]) -> str:
        if not prefix and key in self._elsewhere:
            return self._elsewhere[key]
        if key == "<<":
            return "is no key here: merge keys of YAML are not read, so write the fields out"
        head, _, rest = key.partition(".")
        if rest and head in types:
            return f"a dot divides nothing here: write {head}: and {rest}: below it, further in"
        hint = suggest(key, types) or f"; expected one of {', '.join(types)}"
        return f"no such field{hint}"

    def _error(self, where: str, message: str) -> RecipeError:
        line = self._lines.get(where)
        return RecipeError(f"{self._source}{f', line {line}' if line else ''}: {where}{message}")
