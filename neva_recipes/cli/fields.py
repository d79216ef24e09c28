"""The meaning of each field of a recipe, read from the docstrings under the fields."""

import ast
import functools
import inspect
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neva_recipes.cli.arguments import wrap
from neva_recipes.config import (
    ConfigNode,
    Draft,
    Field,
    Recipe,
    config,
    describe_type,
    field_types,
    format_value,
    iterate_fields,
    made_by_its_fields,
    node_types,
)
from neva_recipes.registry import RecipeParameter

__all__ = ["describe_field", "describe_fields", "describe_parameters", "field_meanings", "fields_by_path"]


@functools.cache
def field_meanings(cls: Any) -> dict[str, str]:
    """Return the docstring under each field of a configuration dataclass, including fields of its bases."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        for definition in _module_syntax(base.__module__).body:
            if isinstance(definition, ast.ClassDef) and definition.name == base.__name__:
                meanings.update(_documented_names(definition))
    return meanings


@functools.cache
def _module_syntax(module_name: str) -> ast.Module:
    file = inspect.getfile(sys.modules[module_name])
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def _documented_names(definition: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            yield statement.target.id, " ".join(following.value.value.split())


_UNTYPED = "what the field takes that it is set to, or a string"
"""The type of a parameter for which the function names none."""


def describe_parameters(parameters: tuple[RecipeParameter, ...]) -> Iterator[str]:
    """Yield the lines that explain the parameters of a recipe function."""
    for parameter in parameters:
        required = parameter.default is inspect.Parameter.empty
        value = "VALUE" if required else shlex.quote(format_value(parameter.default))
        if parameter.obstacle:
            yield f"  {parameter.name}"
            yield wrap(f"{parameter.meaning} [not set on the command line: {parameter.obstacle}]".strip(), "      ")
        else:
            yield f"  {parameter.name}={value}"
            kind = describe_type(parameter.annotation) if parameter.is_typed else _UNTYPED
            yield wrap(f"{parameter.meaning} [{kind}]".strip(), "      ")


def describe_fields(recipe: Draft[ConfigNode]) -> Iterator[str]:
    """Yield the lines that list every settable field with its value in this recipe, its meaning and its type."""
    group = None
    for field in _with_groups_to_make(recipe):
        if field.owner is not group:
            group = field.owner
            yield ""
            yield wrap(f"{field.path.rpartition('.')[0] or 'recipe'}: {inspect.getdoc(field.owner)}")
        meaning = field_meanings(field.owner)[field.path.rpartition(".")[2]]
        yield from describe_field(f"{field.path}={shlex.quote(format_value(field.value))}", meaning, field.annotation)


def _with_groups_to_make(recipe: Draft[ConfigNode]) -> Iterator[Field]:
    """Yield every field of a recipe, and those of a group that is not there but comes with its first field."""
    for field in iterate_fields(recipe):
        yield field
        group = made_by_its_fields(field.annotation)
        if group is not None and field.value is None:
            yield from iterate_fields(config(group), f"{field.path}.")


def describe_field(setting: str, meaning: str, annotation: object) -> Iterator[str]:
    """Yield the lines that explain one setting, such as `optim.lr=0.001`: its meaning and its type below it."""
    yield f"  {setting}"
    yield wrap(f"{meaning} [{describe_type(annotation)}]".strip(), "      ")


def fields_by_path() -> dict[str, object]:
    """Return the annotation of every field of a recipe, by its dotted path, in the order of definition."""
    return dict(_annotated(Recipe))


def _annotated(kind: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, annotation in field_types(kind).items():
        nodes = node_types(annotation)
        for node in nodes:
            yield from _annotated(node, f"{prefix}{name}.")
        if not nodes:
            yield f"{prefix}{name}", annotation
