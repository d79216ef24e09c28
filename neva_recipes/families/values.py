"""The values that a config.json may have: each kind with the text that says what was expected."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "COUNT",
    "COUNT_OR_NULL",
    "FLAG",
    "INDEX",
    "LAYER",
    "LAYERS",
    "NUMBER",
    "NUMBERS",
    "OBJECT",
    "SHARE",
    "SIDE",
    "WORD",
    "WORDS",
    "ZERO_OR_MORE",
    "Kind",
    "bare",
    "shown",
]

_LARGEST = 2**31 - 1
_MOST_LAYERS = 10_000
"""A limit because the tensors of every layer are looked for one by one."""
_LARGEST_NUMBER = 1e30
"""Far beyond any number of a model, and within the range of a 32-bit float."""


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        expected: Its description, after "expected".
        accepts: Whether a value of a JSON file is of this kind.
    """

    expected: str
    accepts: Callable[[Any], bool]


def _is_whole(value: object, least: int, most: int = _LARGEST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LARGEST_NUMBER


def _is_layer(value: object) -> bool:
    # A list of one layer means that layer; a list of several layers is refused elsewhere, with its own message.
    each = value if isinstance(value, list) and value else [value]
    return all(_is_whole(one, -_MOST_LAYERS, _MOST_LAYERS) for one in each)


def _is_side(value: object) -> bool:
    sides = value if isinstance(value, list) and value else [value]
    return sides == [sides[0]] * len(sides) and all(_is_whole(side, 1) for side in sides)


def _is_list_of_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


COUNT = Kind(f"a whole number from 1 to {_LARGEST}", lambda value: _is_whole(value, 1))
COUNT_OR_NULL = Kind(f"{COUNT.expected}, or null", lambda value: value is None or COUNT.accepts(value))
LAYERS = Kind(f"a whole number from 1 to {_MOST_LAYERS}", lambda value: _is_whole(value, 1, _MOST_LAYERS))
INDEX = Kind(f"a whole number from 0 to {_LARGEST}", lambda value: _is_whole(value, 0))
LAYER = Kind(f"a whole number from {-_MOST_LAYERS} to {_MOST_LAYERS}", _is_layer)
SIDE = Kind(f"a whole number from 1 to {_LARGEST}, or a list of the same one", _is_side)
NUMBER = Kind(f"a number above 0, at most {_LARGEST_NUMBER:g}", _is_number)
ZERO_OR_MORE = Kind(
    f"a number from 0 to {_LARGEST_NUMBER:g}", lambda value: _is_number(value) or (value == 0 and _is_number(value + 1))
)
SHARE = Kind("a number above 0, at most 1", lambda value: _is_number(value) and value <= 1)
NUMBERS = Kind(
    f"a list of numbers above 0, at most {_LARGEST_NUMBER:g}",
    lambda value: isinstance(value, list) and all(map(_is_number, value)),
)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
WORD = Kind("a string", lambda value: isinstance(value, str))
WORDS = Kind("a list of strings", _is_list_of_words)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))


def shown(value: object) -> str:
    """Return a value of a JSON file as JSON, shortened, for a message."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        text = "a deep nest"
    return text if len(text) <= 60 else f"{text[:57]}..."


def bare(value: object) -> str:
    """Return a value as `shown` does, but strings without quotes, and true, false and null as in Python."""
    if value is None or isinstance(value, bool):
        return str(value)
    return shown(value).strip('"') if isinstance(value, str) else shown(value)
