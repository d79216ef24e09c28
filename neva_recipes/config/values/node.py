"""The base of every configuration dataclass, and the one validator of field values.

The same annotations decide which values a field accepts from the command line, from Python and from a file.
"""

import enum
import functools
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform

from neva_recipes.config.errors import RecipeError
from neva_recipes.config.values._meant import meant
from neva_recipes.config.values.paths import PathOn
from neva_recipes.secrets import MASK, assigned_secret, is_secret_name, secret_in

T = TypeVar("T")

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
    "config_dataclass",
    "describe_type",
    "field_types",
    "is_none_word",
    "item_types",
    "means_none",
    "members_of",
    "node_types",
    "path_as_text",
    "table_type",
    "tuple_types",
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
    """A pattern that a whole string must match, and its description in messages."""

    pattern: str
    description: str

    def accepts(self, value: str) -> bool:
        """Return whether the whole of `value` matches."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.description


@dataclass(frozen=True)
class PassedOn:
    """A string that is passed to programs and written nowhere: it may hold a secret or several lines.

    It can be anything that an environment variable can hold.
    """

    def accepts(self, value: str) -> bool:
        """Return whether `value` can be passed to a process."""
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
"""The largest integer of a field: torch has no wider integers, and results computed from a few of them fit a float."""

_UNSUITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SCALAR_NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    type(None): "none",
    Path: "a path",
    list: "a list",
    tuple: "a list",
    set: "a list",
    frozenset: "a list",
    dict: "a table by name",
    Any: "a string",
    object: "a string",
}


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def config_dataclass(cls: type[T]) -> type[T]:
    """Make a class a configuration dataclass: keyword-only and frozen.

    Type checkers are not told that it is frozen, because fields of a draft are set, and to them a draft is an object of
    the class.
    """
    return dataclass(kw_only=True, frozen=True)(cls)


@config_dataclass
class ConfigNode:
    """Base of the configuration dataclasses: constructing one validates every field by itself.

    Rules between fields are in `neva_recipes.plan.checks`, so that a recipe that breaks several of them can still be
    read and shown, with a report on all of them.

    Attributes:
        root: Text before the fields of this class in messages, if it is not part of a recipe: `executor`.
        is_made_by_its_fields: Whether setting a field of the group makes the group where it is `None`. Otherwise there
            is no such field in that recipe.
    """

    root = ""
    is_made_by_its_fields = False

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


# There are some hundred annotations, and each is examined again for every value.
_origin: Callable[[object], object] = functools.cache(typing.get_origin)
_arguments: Callable[[object], tuple[Any, ...]] = functools.cache(typing.get_args)


@functools.cache
def members_of(annotation: object) -> tuple[Any, ...]:
    """Return the types of a union; another annotation as the only one."""
    is_union = _origin(annotation) in (Union, types.UnionType)
    return _arguments(annotation) if is_union else (annotation,)


def node_types(annotation: object) -> tuple[type, ...]:
    """Return the configuration dataclasses that a field may hold; empty for a plain value."""
    return tuple(member for member in members_of(annotation) if isinstance(member, type) and is_dataclass(member))


@functools.cache
def table_type(annotation: object) -> tuple[Any, Any] | None:
    """Return the types of the names and values of a field that holds a table; `None` for another field."""
    for member in members_of(annotation):
        if (typing.get_origin(member) or member) is dict:
            name_type, item_type = typing.get_args(member) or (str, str)
            return name_type, item_type
    return None


def tuple_types(member: object) -> tuple[Any, ...] | None:
    """Return the types of the items of a tuple with a fixed length; `None` for another type."""
    arguments = typing.get_args(member)
    return arguments if typing.get_origin(member) is tuple and arguments and Ellipsis not in arguments else None


@functools.cache
def item_types(member: object) -> tuple[Any, ...]:
    """Return the types of the items of a list or a tuple; `str` if the type does not say."""
    return tuple(item for item in typing.get_args(member) if item is not Ellipsis) or (str,)


def is_none_word(text: str) -> bool:
    """Return whether a text means that an optional field is empty, wherever it is written."""
    return text.lower() in ("none", "null")


def means_none(annotation: object, value: object) -> bool:
    """Return whether a value is the word for `None`, in a field that may be `None`."""
    return isinstance(value, str) and is_none_word(value) and type(None) in members_of(annotation)


def describe_type(annotation: object) -> str:
    """Return a description of the values that a field accepts, as help and messages print it."""
    return " or ".join(_describe_member(member) for member in members_of(annotation))


def _describe_member(member: object) -> str:
    origin, arguments = typing.get_origin(member), typing.get_args(member)
    if origin is Annotated:
        rules = " ".join(map(str, _rules(member)))
        return rules if rules and arguments[0] is str else f"{describe_type(arguments[0])} {rules}".strip()
    if origin is Literal:
        return "one of " + ", ".join(
            str(choice) if isinstance(choice, str) else str(choice).lower() for choice in arguments
        )
    if places := tuple_types(member):
        return f"{len(places)} values: {', '.join(map(describe_type, places))}"
    if origin in (list, tuple, set, frozenset, Sequence):
        return f"a list, each {describe_type(item_types(member)[0])}"
    if origin is dict and (table := table_type(member)):
        return f"a table by name, each {describe_type(table[1])}"
    if isinstance(member, type) and issubclass(member, enum.Enum):
        return "one of " + ", ".join(choice.name for choice in member)
    return _SCALAR_NAMES.get(member) or str(getattr(member, "__name__", member))


def check_value(annotation: object, value: object, path: str, *, may_be_empty: bool = False) -> Any:
    """Return `value`, converted if necessary, if a field with this annotation may hold it.

    An integer becomes a float in a field for floats, and a `Path` becomes text. The texts `none` and `null` become
    `None` in a field that may be `None`, since TOML has no other word for it.

    Args:
        annotation: The field's type annotation.
        value: The value to check.
        path: Dotted path of the field for the message, such as `optim.lr`.
        may_be_empty: Whether an empty text is a valid string. It is never a valid path or name: some readers would take
            it for nothing, others for the current folder.

    Raises:
        RecipeError: The value holds a secret, is of the wrong type, empty, not among the choices, or out of range.
    """
    if (table := table_type(annotation)) and isinstance(value, dict):
        name_type, item_type = table
        names = [check_value(name_type, name, f"{path}: name") for name in value]
        return {name: check_value(item_type, value[name], f"{path}.{name}", may_be_empty=True) for name in names}
    value = path_as_text(annotation, value)
    is_optional = type(None) in members_of(annotation)
    if means_none(annotation, value):
        return None
    is_passed_on = PassedOn() in getattr(annotation, "__metadata__", ())
    if not is_passed_on:
        for text in value if isinstance(value, list) else [value]:
            _require_showable(text, path)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            for joint in (" ", ","):  # an option and its value can be two items, and so can the entries of a table
                _require_unassigned(joint.join(value), path)
    is_text = is_optional or str in members_of(annotation)
    if isinstance(value, str) and not value.strip() and is_text and not may_be_empty:
        remedy = "; none clears it" if is_optional else ""
        raise RecipeError(f"{path}={value!r}: is empty: expected {describe_type(annotation)}{remedy}")
    if isinstance(value, list) and "" in value and _lists_paths(annotation):
        raise RecipeError(f"{path}={value!r}: an item is empty: expected {describe_type(annotation)}")
    for member in members_of(annotation):
        accepted, result = _accept(member, value)
        if accepted:
            return result
    members = members_of(annotation)
    choices = [str(choice) for m in members if typing.get_origin(m) is Literal for choice in typing.get_args(m)]
    hint = meant(value, choices, lambda other: any(_accept(member, other)[0] for member in members))
    shown = _shown(value)
    if is_passed_on and is_secret_name(path.rpartition(".")[2]):
        shown = MASK
    raise RecipeError(f"{path}={shown}: expected {describe_type(annotation)}{hint}")


def path_as_text(annotation: object, value: object) -> Any:
    """Return a value in which each `Path`, or other `os.PathLike`, has become text if the field holds paths.

    In a field for something else it stays, and is refused like any wrong value.
    """
    if isinstance(value, os.PathLike) and _has_path(members_of(annotation)):
        return os.fspath(value)
    if isinstance(value, list) and any(isinstance(item, os.PathLike) for item in value) and _lists_paths(annotation):
        return [os.fspath(item) if isinstance(item, os.PathLike) else item for item in value]
    return value


def _lists_paths(annotation: object) -> bool:
    return _has_path(
        item for member in members_of(annotation) for item in _arguments(member) if _origin(member) is list
    )


def _has_path(members: Iterable[object]) -> bool:
    return any(isinstance(rule, PathOn) for member in members for rule in getattr(member, "__metadata__", ()))


def _rules(annotated: Any) -> list[Any]:
    """Return the rules of an annotation, without metadata for other readers."""
    return [rule for rule in annotated.__metadata__ if hasattr(rule, "accepts")]


def _shown(value: object) -> str:
    """Return a value for a message, without nested values, which may be endless or too deep to print."""
    if is_dataclass(value):
        return type(value).__name__
    if isinstance(value, dict):
        return "{...}"
    if isinstance(value, list):
        return f"[{', '.join('[...]' if isinstance(item, list) else _shown(item) for item in value)}]"
    if isinstance(value, int) and value.bit_length() > _LARGEST.bit_length():
        return f"(an integer of {value.bit_length()} bits)"
    return repr(value)


def _require_showable(value: object, path: str) -> None:
    if not isinstance(value, str):
        return
    _require_unassigned(value, path)
    if kind := secret_in(value, os.environ):
        raise RecipeError(
            f"{path}: holds {kind}, and it would be shown and written to files: leave it out, and give it to the "
            "program that needs it in an environment variable"
        )
    if _UNSUITABLE.search(value):
        raise RecipeError(
            f"{path}={value!a}: has a line break, a control character or a byte that is not UTF-8: remove it"
        )


def _require_unassigned(text: str, path: str) -> None:
    if name := assigned_secret(text):
        variable = "MY_SECRET" if " " in name else re.sub(r"\W", "_", name).upper()
        raise RecipeError(
            f"{path}: holds {secret_in(text)}, and it would be shown and written to files: set the variable {variable} "
            f"where you launch, which hands it on (Docker: with executor.pass_env={variable}), and in lines of shell "
            f"write ${variable} in its place"
        )


def _accept(member: Any, value: Any) -> tuple[bool, Any]:
    origin, arguments = _origin(member), _arguments(member)
    if origin is Annotated:
        accepted, result = _accept(arguments[0], value)
        return accepted and all(rule.accepts(result) for rule in _rules(member)), result
    if origin is Literal:
        return any(type(choice) is type(value) and choice == value for choice in arguments), value
    if origin is list:
        if not isinstance(value, list):
            return False, value
        checked = [_accept(item_types(member)[0], item) for item in value]
        return all(accepted for accepted, _ in checked), [item for _, item in checked]
    if (places := tuple_types(member)) is not None:
        fits = isinstance(value, tuple) and len(value) == len(places)
        return fits and all(_accept(kind, item)[0] for kind, item in zip(places, value, strict=True)), value
    if origin is dict:
        return False, value  # `check_value` looks into tables
    if member is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        finite = is_number and value == value and abs(value) <= sys.float_info.max
        return finite, float(value) if finite else value
    if member is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST, value
    if member in (Any, object):
        return True, value
    kind = origin or member
    return isinstance(kind, type) and isinstance(value, kind), value
