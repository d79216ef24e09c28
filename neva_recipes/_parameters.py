"""The parameters of recipe functions: what they are, and their values from the command line."""

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from neva_recipes.config import (
    RecipeError,
    can_be_read,
    describe_type,
    is_list,
    items_of,
    parse_value,
    table_type,
)

__all__ = ["RecipeParameter", "argument_values", "parameters_of", "type_hint", "untyped_texts"]

_TYPES_OF_DEFAULTS = (Enum, bool, int, float, Path, list, tuple, set, dict)
"""Defaults that say what a parameter without an annotation takes; any other one takes text. An Enum may be an int."""

_KINDS_SET_IN_PYTHON: dict[Any, str] = {
    inspect.Parameter.POSITIONAL_ONLY: "it is taken by its place alone",
    inspect.Parameter.VAR_POSITIONAL: "it takes any number of values by their place",
    inspect.Parameter.VAR_KEYWORD: "it takes any number of values by any name",
}


@dataclass(frozen=True)
class RecipeParameter:
    """A parameter of a recipe function, set on the command line as `name=value`.

    Attributes:
        name: Its name.
        annotation: Its type; that of its default, or `str`, where the function does not say.
        default: Its default; `inspect.Parameter.empty` if it must be given.
        meaning: What the docstring of the function says about it; empty if nothing.
        obstacle: Why it cannot be set on the command line; empty if it can.
        is_typed: Whether the function says its type, by an annotation or a default.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str
    obstacle: str = ""
    is_typed: bool = True

    def takes(self, key: str) -> bool:
        """Return whether a key of the command line sets it: its name, `name+`, or of a table `name.KEY`."""
        return key.removesuffix("+") == self.name or (
            key.startswith(f"{self.name}.") and table_type(self.annotation) is not None
        )


def parameters_of(function: Callable[..., object]) -> tuple[RecipeParameter, ...]:
    """Return all parameters, in the order of the function; `obstacle` says which cannot be set on the command line."""
    return tuple(_described(function, parameter) for parameter in inspect.signature(function).parameters.values())


def _described(function: Callable[..., object], parameter: inspect.Parameter) -> RecipeParameter:
    annotation, default = parameter.annotation, parameter.default
    obstacle = _KINDS_SET_IN_PYTHON.get(parameter.kind, "")
    is_typed = annotation is not parameter.empty or isinstance(default, (str, *_TYPES_OF_DEFAULTS))
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        annotation, default = str, None  # it need not be given
    elif annotation is parameter.empty:
        kind = next((kind for kind in _TYPES_OF_DEFAULTS if isinstance(default, kind)), str)
        annotation = type(default) if kind is Enum else kind
    else:
        try:
            annotation = type_hint(function, parameter.name)
        except (NameError, TypeError, AttributeError, SyntaxError) as error:
            annotation, obstacle = str, f"its type {annotation} is not known: {type(error).__name__}: {error}"
        else:
            if not obstacle and not can_be_read(annotation):
                obstacle = f"its type is {describe_type(annotation)}"
    if default is None and annotation is not Any:
        annotation = typing.Optional[annotation]  # noqa: UP045, for annotation is no type to the type checker
    meaning = _meaning(inspect.getdoc(function) or "", parameter.name)
    return RecipeParameter(parameter.name, annotation, default, meaning, obstacle, is_typed)


def type_hint(function: Callable[..., object], name: str) -> Any:
    """Return one annotation of a function as an object, whatever the others are; `Any` where there is none.

    Raises:
        NameError: It names what is not there; other mistakes raise what Python raises.
    """
    function = inspect.unwrap(function)
    annotations = function.__annotations__
    if name not in annotations:
        return Any
    holder = type("holder", (), {"__annotations__": {name: annotations[name]}, "__module__": function.__module__})
    return typing.get_type_hints(holder, function.__globals__, include_extras=True)[name]


def _meaning(docstring: str, name: str) -> str:
    arguments = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    found = arguments and re.search(rf"^(\s+){name}\b[^:\n]*:(.*(?:\n\1\s+.*)*)", arguments[1], re.MULTILINE)
    return " ".join(found[2].split()) if found else ""


def argument_values(
    owner: str, parameters: tuple[RecipeParameter, ...], arguments: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values of the parameters that the command line sets.

    Args:
        owner: Name of the recipe, for messages.
        parameters: The parameters of its function.
        arguments: Text by key, as `RecipeParameter.takes` takes it.

    Raises:
        RecipeError: A parameter is missing, cannot be set there, or has a wrong value.
    """
    values = {}
    for parameter in parameters:
        given = {key: text for key, text in arguments.items() if parameter.takes(key)}
        if given:
            values[parameter.name] = _value(owner, parameter, given)
        elif parameter.default is inspect.Parameter.empty and parameter.obstacle:
            raise RecipeError(f"{owner} needs {parameter.name}, but {_obstacle(parameter)}: give it a default")
        elif parameter.default is inspect.Parameter.empty:
            raise RecipeError(f"{owner} needs {parameter.name}: add {parameter.name}=VALUE")
    return values


def untyped_texts(owner: str, parameters: tuple[RecipeParameter, ...], arguments: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of parameters whose type nothing says, each with the parameter it was typed for.

    The fields that the function sets to them decide what they are.

    Args:
        owner: Name of the recipe, for messages.
        parameters: The parameters of its function.
        arguments: Text by key, as for `argument_values`.
    """
    named = [parameter.name for parameter in parameters if not parameter.is_typed]
    return {arguments[name]: f"{owner} {name}" for name in named if name in arguments}


def _obstacle(parameter: RecipeParameter) -> str:
    return f"cannot be set on the command line: {parameter.obstacle}"


def _value(owner: str, parameter: RecipeParameter, given: Mapping[str, str]) -> Any:
    where = f"{owner} {parameter.name}"
    if parameter.obstacle:
        raise RecipeError(f"{where}: {_obstacle(parameter)}")
    value = None if parameter.default is inspect.Parameter.empty else parameter.default
    for key, text in given.items():
        if key == parameter.name:
            value = parse_value(parameter.annotation, text, where, may_be_empty=True)
        elif key.endswith("+"):
            if not is_list(parameter.annotation):
                raise RecipeError(f"{where}+={text}: is no list: write {parameter.name}={text}")
            added = parse_value(parameter.annotation, text, where, may_be_empty=True)
            kind = type(added) if isinstance(added, list | tuple | set | frozenset) else list
            value = kind([*items_of(value), *items_of(added)])
        else:
            name_type, item_type = table_type(parameter.annotation) or (str, str)
            name = key.removeprefix(f"{parameter.name}.")
            item = parse_value(item_type, text, f"{where}.{name}", may_be_empty=True)
            value = {**(value or {}), parse_value(name_type, name, where): item}
    return value
