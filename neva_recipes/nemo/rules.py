"""What can become of a key, and the kinds of rules that decide it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from neva_recipes.nemo.configuration import MISSING

__all__ = [
    "NOTHING",
    "Configuration",
    "Decision",
    "Outcome",
    "Rule",
    "Unusable",
    "boolean",
    "cannot",
    "carried",
    "carries",
    "decides",
    "harmless",
    "holds",
    "integer",
    "leaves",
    "left",
    "number",
    "one_of",
    "same",
    "text",
]

T = TypeVar("T")

NOTHING = object()
"""Stands for the default of a key that means nothing when it is not there."""


class Unusable(Exception):
    """A value that a rule can make nothing of; the text says what it expected."""


@dataclass(frozen=True)
class Configuration:
    """A NeMo configuration.

    Attributes:
        values: Every value by its dotted key.
    """

    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key; the default where it is not there or has to be given."""
        value = self.values.get(key, default)
        return default if isinstance(value, str) and value == MISSING else value

    def says(self, key: str, default: bool = False) -> bool:
        """Return whether a switch is on."""
        return self.get(key, default) is True

    def count(self, key: str) -> int | None:
        """Return a positive integer, none where the key holds nothing of the kind."""
        try:
            value = integer(self.get(key))
        except Unusable:
            return None
        return value if value > 0 else None


@dataclass(frozen=True)
class Outcome:
    """What becomes of a key.

    Attributes:
        kind: `carried` into fields; `same`: what it asks for holds here anyway; `left` out, without consequence for
            what is trained; `cannot` be carried, and the training means something else without it.
        why: The reason; what there is to say about a key that is carried.
        fields: Fields of the recipe and their values.
        assumed: Fields that the configuration does not give: their value, and why this one.
    """

    kind: Literal["carried", "same", "left", "cannot"]
    why: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


def carried(fields: Mapping[str, Any], why: str = "", assumed: Mapping[str, tuple[Any, str]] | None = None) -> Outcome:
    """Return the outcome of a key whose meaning stands in fields of the recipe."""
    return Outcome("carried", why, fields, assumed or {})


def same(why: str = "", assumed: Mapping[str, tuple[Any, str]] | None = None) -> Outcome:
    """Return the outcome of a key that asks for what holds anyway."""
    return Outcome("same", why, assumed=assumed or {})


def left(why: str) -> Outcome:
    """Return the outcome of a key without counterpart whose absence does not change what is trained."""
    return Outcome("left", why)


def cannot(why: str, fields: Mapping[str, Any] | None = None) -> Outcome:
    """Return the outcome of a key whose absence makes the training mean something else."""
    return Outcome("cannot", why, fields or {})


Decision = Callable[[Any, Configuration], Outcome]
"""Returns what becomes of a key with a value; raises `Unusable` for a value it can make nothing of."""


@dataclass(frozen=True)
class Rule:
    """What becomes of one key, or of all that begin alike.

    Attributes:
        key: Dotted key; one that ends in `*` stands for all that begin with what is before it.
        becomes: For the table of keys: the field, or a word on what happens.
        remark: For the table of keys: what else there is to say.
        decide: The decision on a value.
        absent: What NeMo takes where the key is not there; `NOTHING` if that makes no difference.
        required: Whether there is no recipe without it.
    """

    key: str
    becomes: str
    remark: str
    decide: Decision
    absent: Any = NOTHING
    required: bool = False


def carries(
    key: str,
    path: str,
    convert: Callable[[Any], Any],
    remark: str = "",
    absent: Any = NOTHING,
    required: bool = False,
) -> Rule:
    """Return the rule of a key that is a field under another name; null leaves the field at its default."""

    def decide(value: Any, _: Configuration) -> Outcome:
        if value is None and not required:
            return same("not set")
        return carried({path: convert(value)})

    return Rule(key, f"`{path}`", remark, decide, absent, required)


def holds(key: str, *values: Any, otherwise: str, absent: Any = NOTHING) -> Rule:
    """Return the rule of a key of which only some values can be had, and those anyway; null counts as the first."""
    known = [_plain(value) for value in (*values, None)]

    def decide(value: Any, _: Configuration) -> Outcome:
        return same() if _plain(value) in known else cannot(otherwise)

    return Rule(key, "always " + " or ".join(f"`{_written(value)}`" for value in values), otherwise, decide, absent)


def leaves(key: str, *values: Any, otherwise: str) -> Rule:
    """Return the rule of a key whose values hold here anyway, or else are left out without harm."""
    known = [_plain(value) for value in (*values, None)]

    def decide(value: Any, _: Configuration) -> Outcome:
        return same() if _plain(value) in known else left(otherwise)

    words = " or ".join(f"`{_written(value)}`" for value in values)
    return Rule(key, f"left out unless {words}" if values else "left out", otherwise, decide)


def harmless(key: str, why: str) -> Rule:
    """Return the rule of a key that says how something is done, not what is computed."""
    return Rule(key, "no effect", why, lambda value, _: same(why))


def decides(
    key: str,
    becomes: str,
    remark: str,
    decide: Decision,
    absent: Any = NOTHING,
) -> Rule:
    """Return a rule with a decision of its own."""
    return Rule(key, becomes, remark, decide, absent)


def _plain(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _written(value: Any) -> str:
    return "null" if value is None else str(value)


def integer(value: Any) -> int:
    """Return a whole number; a text or a float that stands for one will do.

    Raises:
        Unusable: The value is something else.
    """
    result = number(value)
    if result != int(result):
        raise Unusable("expected an integer")
    return int(result)


def number(value: Any) -> float:
    """Return a finite number; a text that stands for one will do.

    Raises:
        Unusable: The value is something else.
    """
    try:
        result = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        result = None
    if result is None or result != result or abs(result) == float("inf"):
        raise Unusable("expected a number")
    return result


def boolean(value: Any) -> bool:
    """Return a truth value.

    Raises:
        Unusable: The value is something else.
    """
    if not isinstance(value, bool):
        raise Unusable("expected True or False")
    return value


def one_of(value: Any, meanings: Mapping[Any, T]) -> T | None:
    """Return the meaning of a value, none if it has none."""
    return meanings.get(value) if isinstance(value, str) or value is None else None


def text(value: Any) -> str:
    """Return a text that is not empty.

    Raises:
        Unusable: The value is something else.
    """
    if not isinstance(value, str) or not value:
        raise Unusable("expected a text")
    return value
