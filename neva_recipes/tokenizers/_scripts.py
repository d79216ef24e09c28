"""Scripts: which one each character of a text belongs to, and how many words of each there are."""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

__all__ = ["NO_LETTERS", "UNSPACED", "scripts_of", "words_of"]

NO_LETTERS, _OTHER = "no letters", "other"

_NAMES = {
    **{name.upper(): name for name in ("Latin", "Greek", "Cyrillic", "Armenian", "Georgian", "Hebrew", "Arabic")},
    **{name.upper(): name for name in ("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Tamil", "Telugu", "Kannada")},
    **{name.upper(): name for name in ("Malayalam", "Sinhala", "Tibetan", "Ethiopic", "Mongolian", "Hangul")},
    **{name.upper(): name for name in ("Thai", "Lao", "Khmer", "Myanmar")},
    **{"CJK": "Han", "IDEOGRAPH": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"},
}
"""Words in the names of letters in Unicode, and the script that each says."""

UNSPACED = ("Han", "Kana", "Thai", "Lao", "Khmer", "Myanmar")
"""Scripts that put no spaces between words."""

_WORD = re.compile(r"\S+")


def scripts_of(text: str) -> list[str]:
    """Return the script of every character.

    What is no letter, such as a space, a digit or a comma, belongs to the letter that follows, else to the last one; a
    mark on a letter belongs to it.
    """
    found: list[str] = []
    waiting, last = 0, NO_LETTERS
    for character in text:
        script = _script(character)
        if script is None and not waiting and unicodedata.category(character).startswith("M"):
            script = last
        if script is None:
            waiting += 1
            continue
        found += [script] * (waiting + 1)
        waiting, last = 0, script
    return found + [last] * waiting


@lru_cache(maxsize=2**16)
def _script(character: str) -> str | None:
    """Return the script of a letter; `None` for other characters, marks among them."""
    if not character.isalpha():
        return None
    words = unicodedata.name(character, "").replace("-", " ").split()
    return next((_NAMES[word] for word in words if word in _NAMES), _OTHER)


def words_of(text: str, scripts: list[str]) -> Counter[str]:
    """Return how many words of each script a text has.

    A word stands between spaces; one with letters of several scripts counts for each of them. Scripts without spaces
    have no such words, so each letter counts.

    Args:
        text: The text.
        scripts: The script of each of its characters.
    """
    found: Counter[str] = Counter()
    for word in _WORD.finditer(text):
        letters = [script for script, one in zip(scripts[slice(*word.span())], word[0], strict=True) if one.isalpha()]
        found.update([scripts[word.start()]] if not letters else [])
        found.update(
            script
            for script, before in zip(letters, [None, *letters], strict=False)
            if script in UNSPACED or script != before
        )
    return found
