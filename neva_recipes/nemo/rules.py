"""The possible outcomes for a key, and the kinds of rules that decide them."""

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
"""Default of a key whose absence means nothing."""


class Unusable(Exception):
    """A value that a rule cannot use; the text says what it expected."""


@dataclass(frozen=True)
class Configuration:
    """A NeMo configuration.

    Attributes:
        values: Every value by its dotted key.
    """

    values: Mapping[str, Any]

    def get(self, key: str, default: object = None) -> Any:
        """Return the value of a key; the default if it is absent or a missing mandatory value."""
        value = self.values.get(key, default)
        return default if isinstance(value, str) and value == MISSING else value

    def says(self, key: str, default: bool = False) -> bool:
        """Return whether a switch is on."""
        return self.get(key, default) is True

    def count(self, key: str) -> int | None:
        """Return a positive integer; `None` if the key does not hold one."""
        try:
            value = integer(self.get(key))
        except Unusable:
            return None
        return value if value > 0 else None


@dataclass(frozen=True)
class Outcome:
    """What becomes of a key.

    Attributes:
        kind: `carried` into fields; `same`: what it asks for is always so here; `left` out, without effect on what is
            trained; `cannot` be carried, and the training is different without it.
        why: The reason, or a remark on a key that is carried.
        fields: Fields of the recipe and their values.
        assumed: Fields that the configuration does not give: their value, and the reason for it.
    """

    kind: Literal["carried", "same", "left", "cannot"]
    why: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


def carried(
    fields: Mapping[str, object], why: str = "", assumed: Mapping[str, tuple[object, str]] | None = None
) -> Outcome:
    """Return the outcome of a key that becomes fields of the recipe."""
    return Outcome("carried", why, fields, assumed or {})


def same(why: str = "", assumed: Mapping[str, tuple[object, str]] | None = None) -> Outcome:
    """Return the outcome of a key that asks for what is always so."""
    return Outcome("same", why, assumed=assumed or {})


def left(why: str) -> Outcome:
    """Return the outcome of a key without counterpart that does not affect what is trained."""
    return Outcome("left", why)


def cannot(why: str, fields: Mapping[str, object] | None = None) -> Outcome:
    """Return the outcome of a key without which the training is different."""
    return Outcome("cannot", why, fields or {})


Decision = Callable[[Any, Configuration], Outcome]
"""Returns the outcome of a key with a value; raises `Unusable` for a value that it cannot use."""


@dataclass(frozen=True)
class Rule:
    """The rule for one key, or for all keys with the same beginning.

    Attributes:
        key: Dotted key; one that ends in `*` stands for all keys that begin with the text before it.
        becomes: For the table of keys: the field, or a word on what happens.
        remark: For the table of keys: a further remark.
        decide: Decides the outcome for a value.
        absent: NeMo's default if the key is absent; `NOTHING` if that makes no difference.
        required: Whether every recipe needs it.
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
    convert: Callable[[object], object],
    remark: str = "",
    absent: object = NOTHING,
    required: bool = False,
) -> Rule:
    """Return the rule for a key that is a field under another name; null leaves the field at its default."""

    def decide(value: object, _: Configuration) -> Outcome:
        if value is None and not required:
            return same("not set")
        return carried({path: convert(value)})

    return Rule(key, f"`{path}`", remark, decide, absent, required)


def holds(key: str, *values: object, otherwise: str, absent: object = NOTHING) -> Rule:
    """Return the rule for a key whose possible values hold without any setting; null means the first."""
    known = [_plain(value) for value in (*values, None)]

    def decide(value: object, _: Configuration) -> Outcome:
        return same() if _plain(value) in known else cannot(otherwise)

    return Rule(key, "always " + " or ".join(f"`{_written(value)}`" for value in values), otherwise, decide, absent)


def leaves(key: str, *values: object, otherwise: str) -> Rule:
    """Return the rule for a key whose values are always so here, or are left out without harm."""
    known = [_plain(value) for value in (*values, None)]

    def decide(value: object, _: Configuration) -> Outcome:
        return same() if _plain(value) in known else left(otherwise)

    words = " or ".join(f"`{_written(value)}`" for value in values)
    return Rule(key, f"left out unless {words}" if values else "left out", otherwise, decide)


def harmless(key: str, why: str) -> Rule:
    """Return the rule for a key that says how something is done, not what is computed."""
    return Rule(key, "no effect", why, lambda value, _: same(why))


def decides(
    key: str,
    becomes: str,
    remark: str,
    decide: Decision,
    absent: object = NOTHING,
) -> Rule:
    """Return a rule with a decision of its own."""
    return Rule(key, becomes, remark, decide, absent)


def _plain(value: object) -> Any:
    return value.lower() if isinstance(value, str) else value


def _written(value: object) -> str:
    return "null" if value is None else str(value)


def integer(value: object) -> int:
    """Return an integer; a text or a float with an integer value is accepted.

    Raises:
        Unusable: The value is something else.
    """
    result = number(value)
    if result != int(result):
        raise Unusable("expected an integer")
    return int(result)


def number(value: object) -> float:
    """Return a finite number; a text with a number is accepted.

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


def boolean(value: object) -> bool:
    """Return a truth value.

    Raises:
        Unusable: The value is something else.
    """
    if not isinstance(value, bool):
        raise Unusable("expected True or False")
    return value


def one_of(value: object, meanings: Mapping[Any, T]) -> T | None:
    """Return the meaning of a value; `None` if it has none."""
    return meanings.get(value) if isinstance(value, str) or value is None else None


def text(value: object) -> str:
    """Return a text that is not empty.

    Raises:
        Unusable: The value is something else.
    """
    if not isinstance(value, str) or not value:
        raise Unusable("expected a text")
    return value
