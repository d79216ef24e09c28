"""How numbers are written: one rule for the command line and for YAML.

Numbers are decimal digits, optionally grouped by single underscores (1_000). Text that other programs read differently
is not a number: 010 is eight in YAML 1.1 and ten for Python's `int`, 0x10 is text in Hydra and sixteen in TOML, and 1e3
is not an integer.
"""

import re
from collections.abc import Callable
from functools import partial

__all__ = ["FLOAT", "INTEGER", "meant_number", "read_number"]

_WHOLE = r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"

INTEGER = rf"[-+]?{_WHOLE}"
"""Pattern of an integer."""

FLOAT = rf"[-+]?(?:{_WHOLE}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][-+]?[0-9]+)?"
"""Pattern of a number, integer or not."""


def read_number(kind: type[int] | type[float], text: str) -> int | float | None:
    """Return the number of that kind that a text stands for; `None` if it stands for none."""
    pattern = INTEGER if kind is int else FLOAT
    try:
        return kind(text) if re.fullmatch(pattern, text) else None
    except ValueError:  # more digits than Python turns into an integer
        return None


def meant_number(text: str) -> int | float | None:
    """Return the number that a user who wrote `010`, `0x10` or `1e3` may have meant; `None` if there is none."""
    readers: tuple[Callable[[str], float], ...] = (int, partial(int, base=0), float)
    for read in readers:
        try:
            number = read(text)
            return int(number) if number == int(number) else number
        except (ValueError, OverflowError):  # not such a number, or infinite
            continue
    return None
