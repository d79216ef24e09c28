"""Recipes and executors as Fiddle graphs: making them with every default written out, changing them by path, building.

Paths are relative to the root; messages put the name of the root before them where it has one (`ConfigNode.root`).
"""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import fiddle as fdl

from neva_recipes.config._history import value_from
from neva_recipes.config._node import (
    ConfigNode,
    check_value,
    describe_type,
    field_types,
    node_types,
    parse_value,
    suggest,
    table_type,
)
from neva_recipes.config.errors import RecipeError

__all__ = ["Field", "build", "config", "iterate_fields", "set_field"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Field:
    """One settable field of a recipe or an executor.

    Attributes:
        path: Dotted name, such as `optim.lr`.
        annotation: Its type annotation.
        value: Its current value.
        owner: The dataclass that declares it.
    """

    path: str
    annotation: Any
    value: Any
    owner: type


def config(cls: type[T], **values: Any) -> fdl.Config[T]:
    """Return a Fiddle config of a configuration dataclass with every default written out.

    A saved recipe therefore keeps its meaning when a default in the code changes. Fiddle's history of the config tells
    defaults from values that were given.

    Args:
        cls: The dataclass.
        **values: Fields that differ from the defaults; nodes may be Fiddle configs.

    Raises:
        RecipeError: A name is not a field of `cls`.
    """
    types = field_types(cls)  # type: ignore[arg-type]
    for name in values:
        if name not in types:
            raise RecipeError(f"{cls.__name__} has no field {name}{suggest(name, types)}")
    defaults = {
        field.name: field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }
    node = fdl.Config(cls, **values)
    with value_from(f"default of {cls.__name__}"):
        for name, default in defaults.items():
            if name not in values:
                setattr(node, name, default)
    return node


def build(recipe: fdl.Buildable[T], path: str = "") -> T:  # type: ignore[type-var]
    """Return the dataclass tree that a Fiddle config describes, every field checked by itself.

    Args:
        recipe: The Fiddle config of a recipe or an executor, or a node of it.
        path: Dotted name of that node, for messages; empty for the root.

    Raises:
        RecipeError: A field is missing or holds a wrong value; the text starts with the dotted path.
    """
    cls: Any = fdl.get_callable(recipe)
    if not _is_node_class(cls):
        raise RecipeError(f"{path or 'recipe'} describes {cls.__name__}: expected a class of neva_recipes.config")
    path = path or cls.root
    arguments = recipe.__arguments__
    values = {}
    for name, annotation in field_types(cls).items():
        where = f"{path}.{name}" if path else name
        if name not in arguments:
            if _has_default(cls, name):
                continue
            raise RecipeError(f"{where} is not set: expected {describe_type(annotation)}")
        value = arguments[name]
        if isinstance(value, fdl.Buildable):
            value = build(value, where)
        elif isinstance(value, ConfigNode):
            kind = type(value).__name__
            raise RecipeError(
                f"{where} is a finished {kind}: write config({kind}, ...), which can be changed and saved"
            )
        values[name] = value
    try:
        built: T = cls(**values)
    except RecipeError:
        for name, value in values.items():  # the same, with the path of the field
            check_value(field_types(cls)[name], value, f"{path}.{name}" if path else name)
        raise
    return built


def _is_node_class(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, ConfigNode)


def _has_default(cls: Any, name: str) -> bool:
    field = cls.__dataclass_fields__[name]
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def iterate_fields(recipe: fdl.Buildable[Any], prefix: str = "") -> Iterator[Field]:
    """Yield every settable field of a recipe, depth first in the order of definition; groups yield their fields."""
    cls: Any = fdl.get_callable(recipe)
    for name, annotation in field_types(cls).items():
        value = recipe.__arguments__.get(name)
        if isinstance(value, fdl.Buildable):
            yield from iterate_fields(value, f"{prefix}{name}.")
        else:
            yield Field(f"{prefix}{name}", annotation, value, cls)


def set_field(recipe: fdl.Buildable[Any], path: str, text: str) -> None:
    """Set one field from command-line text, in place.

    Args:
        recipe: The recipe or executor to change.
        path: Dotted name, such as `optim.lr`; of what is in a table, such as `env.NCCL_DEBUG`.
        text: What was typed after `=`; `none` clears an optional field.

    Raises:
        RecipeError: There is no such field, or it does not accept the text; the nearest names are offered.
    """
    node: fdl.Buildable[Any] = recipe
    shown = _shown(recipe, path)
    *groups, name = path.split(".")
    for depth, group in enumerate(groups):
        child = node.__arguments__.get(group)
        if not isinstance(child, fdl.Buildable):
            types, here = field_types(fdl.get_callable(node)), _shown(recipe, ".".join(groups[: depth + 1]))
            if group not in types:
                raise _no_such_field(recipe, path, types)
            if table := table_type(types[group]):
                item = parse_value(table[1], text, shown)
                key = ".".join([*groups[depth + 1 :], name])
                setattr(node, group, check_value(types[group], {**(child or {}), key: item}, here))
                return
            if child is None and node_types(types[group]):
                raise RecipeError(f"{shown}: {here} is none in this recipe, so it has no fields")
            raise RecipeError(f"{shown}: {here} is a field, not a group of fields")
        node = child
    types = field_types(fdl.get_callable(node))
    if name not in types:
        raise _no_such_field(recipe, path, types)
    setattr(node, name, parse_value(types[name], text, shown))


def _shown(recipe: fdl.Buildable[Any], path: str) -> str:
    root = getattr(fdl.get_callable(recipe), "root", "")
    return f"{root}.{path}" if root else path


def _no_such_field(recipe: fdl.Buildable[Any], path: str, nearest_group: Iterable[str]) -> RecipeError:
    """Return the error for a path, offering fields of that name or a similar one, those of the same group first."""
    group, _, name = path.rpartition(".")
    paths = [field.path for field in iterate_fields(recipe)]
    names = {candidate: candidate.rpartition(".")[2] for candidate in paths}
    alike = [name] if name in names.values() else difflib.get_close_matches(name, set(names.values()), n=3, cutoff=0.6)
    near = [candidate for candidate in paths if names[candidate] in alike]
    near.sort(key=lambda candidate: (candidate.rpartition(".")[0] != group, alike.index(names[candidate])))
    start = f"{_shown(recipe, path)}: no such field"
    if near:
        return RecipeError(f"{start} (did you mean {', '.join(_shown(recipe, found) for found in near[:3])}?)")
    return RecipeError(f"{start}; expected one of {', '.join(nearest_group)}")
