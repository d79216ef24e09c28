"""The base of every configuration dataclass, and the one validator of field values.

The same annotations decide what the command line, Python and a loaded file may put into a field.
"""

import difflib
import functools
import os
import re
import sys
import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union

from neva_recipes.config.errors import RecipeError
from neva_recipes.secrets import MASK, is_secret, is_secret_name, mask, secret_in

__all__ = [
    "ConfigNode",
    "Environment",
    "Matches",
    "NonNegative",
    "NonNegativeFloat",
    "PassedOn",
    "Positive",
    "PositiveFloat",
    "Range",
    "check_value",
    "describe_type",
    "field_types",
    "format_value",
    "node_types",
    "parse_value",
    "suggest",
    "table_type",
]


@dataclass(frozen=True)
class Range:
    """Bounds of a number; `above` excludes its value, the others include theirs."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None

    def accepts(self, value: float) -> bool:
        """Return whether `value` lies within the bounds (a not-a-number never does)."""
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and abs(value) != float("inf")
            and value == value
        )

    def __str__(self) -> str:
        bounds = ((">", self.above), (">=", self.minimum), ("<=", self.maximum))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Matches:
    """A pattern that a whole string must match, and the words for it in messages."""

    pattern: str
    description: str

    def accepts(self, value: str) -> bool:
        """Return whether the whole of `value` matches."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.description


@dataclass(frozen=True)
class PassedOn:
    """A string that programs are given and that is written nowhere: it may hold a secret, or lines.

    It is whatever an environment variable can hold.
    """

    def accepts(self, value: str) -> bool:
        """Return whether a process can be given `value`."""
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
        return "\0" not in value

    def __str__(self) -> str:
        return "a string an environment variable can hold"


Environment = dict[
    Annotated[str, Matches(r"[A-Za-z_][A-Za-z0-9_]*", "a name of letters, digits and underscores")],
    Annotated[str, PassedOn()],
]
"""Environment variables by name."""

Positive = Annotated[int, Range(minimum=1)]
NonNegative = Annotated[int, Range(minimum=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(minimum=0)]

_LARGEST = 2**63 - 1
"""The largest integer of a field: torch has no wider ones, and what is computed from a few of these has a float."""

_UNSUITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SCALAR_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a string", type(None): "none"}


@dataclass(kw_only=True, frozen=True)
class ConfigNode:
    """Base of the configuration dataclasses: constructing one validates every field by itself.

    Rules between fields live in `neva_recipes.plan.checks`, so that a recipe that breaks several of them can be read,
    shown and told about all of them.

    Attributes:
        root: What messages put before the fields of a tree of this class, where it is not the recipe: `executor`.
    """

    root = ""

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, annotation in field_types(cls).items():
            path = f"{cls.root or cls.__name__}.{name}"
            object.__setattr__(self, name, check_value(annotation, getattr(self, name), path))


@functools.cache
def field_types(cls: Any) -> dict[str, Any]:
    """Return the annotation of every field of a configuration dataclass, in the order of definition."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


# There are some hundred annotations, and each is taken apart again for every value.
_origin = functools.cache(typing.get_origin)
_arguments = functools.cache(typing.get_args)


@functools.cache
def _members(annotation: Any) -> tuple[Any, ...]:
    is_union = _origin(annotation) in (Union, types.UnionType)
    return _arguments(annotation) if is_union else (annotation,)


def node_types(annotation: Any) -> tuple[type, ...]:
    """Return the configuration dataclasses a field may hold; empty for a plain value."""
    return tuple(member for member in _members(annotation) if isinstance(member, type) and is_dataclass(member))


@functools.cache
def table_type(annotation: Any) -> tuple[Any, Any] | None:
    """Return the types of the names and values of a field that holds a table; none for another field."""
    for member in _members(annotation):
        if typing.get_origin(member) is dict:
            name_type, item_type = typing.get_args(member)
            return name_type, item_type
    return None


def suggest(word: str, choices: typing.Iterable[str]) -> str:
    """Return `" (did you mean a, b?)"` for the nearest of `choices`, or an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=3, cutoff=0.6)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def describe_type(annotation: Any) -> str:
    """Return the words for what a field accepts, as help and messages print them."""
    return " or ".join(_describe_member(member) for member in _members(annotation))


def _describe_member(member: Any) -> str:
    origin, arguments = typing.get_origin(member), typing.get_args(member)
    if origin is Annotated:
        rules = " ".join(str(rule) for rule in member.__metadata__)
        return rules if arguments[0] is str else f"{_describe_member(arguments[0])} {rules}"
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is list:
        return f"a list, each {_describe_member(arguments[0])}"
    if origin is dict:
        return f"a table by name, each {_describe_member(arguments[1])}"
    return _SCALAR_NAMES.get(member) or member.__name__


def check_value(annotation: Any, value: Any, path: str) -> Any:
    """Return `value` if a field annotated with `annotation` may hold it; an integer becomes a float where one is due.

    Args:
        annotation: The field's type annotation.
        value: The value to check.
        path: Dotted name of the field for the message, such as `optim.lr`.

    Raises:
        RecipeError: The value holds a secret, is of the wrong type, not among the choices, or out of range.
    """
    if (table := table_type(annotation)) and isinstance(value, dict):
        name_type, item_type = table
        names = [check_value(name_type, name, f"{path}: name") for name in value]
        return {name: check_value(item_type, value[name], f"{path}.{name}") for name in names}
    is_passed_on = PassedOn() in getattr(annotation, "__metadata__", ())
    if not is_passed_on:
        for text in value if isinstance(value, list) else [value]:
            _require_showable(text, path)
    for member in _members(annotation):
        accepted, result = _accept(member, value)
        if accepted:
            return result
    choices = [str(c) for m in _members(annotation) if typing.get_origin(m) is Literal for c in typing.get_args(m)]
    hint = suggest(value, choices) if isinstance(value, str) else ""
    shown = _shown(value)
    if is_passed_on and is_secret_name(path.rpartition(".")[2]):
        shown = MASK
    raise RecipeError(f"{path}={shown}: expected {describe_type(annotation)}{hint}")


def _shown(value: Any) -> str:
    """Return a value for a message: what is nested may be endless, or too deep to be printed."""
    if is_dataclass(value):
        return type(value).__name__
    if isinstance(value, dict):
        return "{...}"
    if isinstance(value, list):
        return f"[{', '.join('[...]' if isinstance(item, list) else _shown(item) for item in value)}]"
    if isinstance(value, int) and value.bit_length() > _LARGEST.bit_length():
        return f"(an integer of {value.bit_length()} bits)"
    return repr(value)


def _require_showable(value: Any, path: str) -> None:
    if not isinstance(value, str):
        return
    if kind := secret_in(value, os.environ):
        raise RecipeError(
            f"{path}: holds {kind}, and it would be shown and written to files: leave it out, and give it to the "
            "program that needs it in an environment variable"
        )
    if _UNSUITABLE.search(value):
        raise RecipeError(
            f"{path}={value!a}: has a line break, a control character or a byte that is not UTF-8: remove it"
        )


def _accept(member: Any, value: Any) -> tuple[bool, Any]:
    origin, arguments = _origin(member), _arguments(member)
    if origin is Annotated:
        accepted, result = _accept(arguments[0], value)
        return accepted and all(rule.accepts(result) for rule in member.__metadata__), result
    if origin is Literal:
        return isinstance(value, str) and value in arguments, value
    if origin is list:
        if not isinstance(value, list):
            return False, value
        checked = [_accept(arguments[0], item) for item in value]
        return all(accepted for accepted, _ in checked), [item for _, item in checked]
    if origin is dict:
        return False, value  # `check_value` looks into tables
    if member is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        finite = is_number and value == value and abs(value) <= sys.float_info.max
        return finite, float(value) if finite else value
    if member is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST, value
    return isinstance(value, member), value


def parse_value(annotation: Any, text: str, path: str) -> Any:
    """Return the value that `text` stands for on the command line, checked against `annotation`.

    Args:
        annotation: The field's type annotation.
        text: What was typed after `path=`.
        path: Dotted name of the field.

    Raises:
        RecipeError: The text does not stand for a value the field accepts.
    """
    members = _members(annotation)
    if type(None) in members and text.lower() in ("none", "null"):
        return None
    if node_types(annotation):
        names = ", ".join(f"{path}.{name}" for cls in node_types(annotation)[:1] for name in field_types(cls))
        raise RecipeError(f"{path}={text}: is a group of fields, set one of them: {names}")
    if table_type(annotation):
        raise RecipeError(f"{path}={text}: is a table, set what is in it by name: {path}.NAME=VALUE")
    for member in members:
        value = _parse_member(member, text)
        if _accept(member, value)[0]:
            return check_value(annotation, value, path)
    return check_value(annotation, text, path)


def _parse_member(member: Any, text: str) -> Any:
    origin, arguments = typing.get_origin(member), typing.get_args(member)
    if origin is Annotated:
        return _parse_member(arguments[0], text)
    if origin is list:
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return [_parse_member(arguments[0], item.strip()) for item in inner.split(",") if item.strip()]
    if member is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if member in (int, float):
        try:
            return member(text)
        except ValueError:
            return text
    return text


def format_value(value: Any) -> str:
    """Return a field's value as it is written after `key=` on the command line, not yet quoted for a shell.

    Of a recipe that has not been checked a secret is masked.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(format_value, value))
    if isinstance(value, dict):
        shown = {name: MASK if is_secret(name, str(item)) else str(item) for name, item in value.items()}
        return ",".join(f"{name}={item}" for name, item in shown.items()) or "{}"
    return mask(str(value))
