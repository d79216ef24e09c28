"""What a wrong value may have been meant to be."""

from collections.abc import Callable, Iterable

from neva_recipes.config.values.nearness import suggest
from neva_recipes.config.values.numbers import meant_number, read_number

__all__ = ["meant"]

_WORDS = {"true": True, "false": False}


def meant(value: object, choices: Iterable[str], accepts: Callable[[object], bool]) -> str:
    """Return a hint for the end of a message about a wrong value; empty if nothing is near.

    Args:
        value: The value.
        choices: The texts that the field takes.
        accepts: Returns whether the field takes another value.
    """
    if isinstance(value, str):
        read = [read_number(int, value), read_number(float, value), _WORDS.get(value)]
        if any(accepts(one) for one in read if one is not None):
            return f" (this is a text: write {value} without quotes)"
        if near := suggest(value, choices):
            return near
    number = meant_number(str(value)) if isinstance(value, str | float) else None  # YAML reads 1e3 as a float
    return f" (did you mean {number}?)" if number is not None and accepts(number) else ""
