"""Several values in a field that takes one: whether the user meant a sweep."""

import shlex
from collections.abc import Callable, Mapping, Sequence

from neva_recipes.config import RecipeError, format_value, is_list, iterate_fields
from neva_recipes.pipeline import Stage
from neva_recipes.sweep import split_choices

__all__ = ["choices_of", "means_sweep", "split_lists"]

_LONGEST_WORD = 60
"""Longest list that a message repeats, in characters."""


def choices_of(overrides: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the values of each override, one or several, as a sweep takes them; an addition to a list is one value."""
    return {key: [text] if key.endswith("+") else split_choices(text) for key, text in overrides.items()}


def means_sweep(message: str, overrides: Mapping[str, str], make: Callable[[Mapping[str, str]], object]) -> bool:
    """Return whether an error is about a field with several values, each of which would be valid.

    Args:
        message: The error.
        overrides: The overrides given.
        make: Raises `RecipeError` if overrides with one value each are wrong.
    """
    choices = choices_of(overrides)
    first = {key: values[0] for key, values in choices.items()}
    for key, values in choices.items():
        if len(values) < 2 or f"{key}=" not in message:
            continue
        try:
            for value in values:
                make({**first, key: value})
        except RecipeError:
            return False
        return True
    return False


def split_lists(points: Sequence[Stage]) -> list[str]:
    """Return a line for each field that takes a list, if a sweep gives each point one item of it.

    Args:
        points: The stages of a sweep; stages of other pipelines have no varying fields.
    """
    fields = {field.path: field for field in iterate_fields(points[0].work)}
    lines = []
    for path in points[0].settings:
        if path not in fields or not is_list(fields[path].annotation):
            continue
        texts = list(dict.fromkeys(point.settings[path] for point in points))
        if any(text.startswith("[") for text in texts):
            continue  # a user who writes lists in brackets knows
        together = shlex.quote(f"{path}=[{format_value(texts)}]")
        shown = together if len(together) <= _LONGEST_WORD else f"{path}=[...]"
        lines.append(f"{path} takes a list: each point gets one of {len(texts)} values; {shown} keeps them together")
    return lines
