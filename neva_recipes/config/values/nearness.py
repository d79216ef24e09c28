"""The names that a mistyped name may have meant."""

import difflib
from collections.abc import Iterable

__all__ = ["near_words", "suggest"]

_LEAST_RATIO = 0.6
"""How similar two names must be, by `difflib.SequenceMatcher.ratio`."""


def near_words(word: str, choices: Iterable[str], most: int = 3, least_ratio: float = _LEAST_RATIO) -> list[str]:
    """Return the choices that are similar to a word, nearest first; case is ignored.

    Leading parts, each followed by a dot, that both share don't count: `model.seed` is not similar to `model.kept`.

    Args:
        word: The word typed.
        choices: The names that exist.
        most: The most names to return.
        least_ratio: How similar they must be, from 0 to 1.
    """
    matcher: difflib.SequenceMatcher[str] = difflib.SequenceMatcher()
    found = []
    for choice in dict.fromkeys(choices):
        typed, known = _without_common_parts(word.lower(), choice.lower())
        matcher.set_seqs(known, typed)
        bounds = (matcher.real_quick_ratio, matcher.quick_ratio)  # cheap upper bounds
        if all(bound() >= least_ratio for bound in bounds) and (ratio := matcher.ratio()) >= least_ratio:
            found.append((-ratio, choice))
    return [choice for _, choice in sorted(found, key=lambda pair: pair[0])[:most]]


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return `" (did you mean a, b?)"` for the nearest of `choices`, or an empty string."""
    near = near_words(word, choices)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def _without_common_parts(one: str, other: str) -> tuple[str, str]:
    parts, others = one.split("."), other.split(".")
    same = 0
    while same < min(len(parts), len(others)) - 1 and parts[same] == others[same]:
        same += 1
    return ".".join(parts[same:]), ".".join(others[same:])
