"""The files that a name of a missing file may have meant: those that differ from it in spelling only."""

import re
import shlex
from collections.abc import Collection
from pathlib import Path

from neva_recipes.config import expand_path, near_words, path_is

__all__ = ["suggest_files"]

_PURPOSES = (
    *("train", "pretrain", "finetune", "val", "dev", "eval", "test", "held"),
    *("question", "answer", "caption", "text"),
)
"""Beginnings of words that say what a file is for: `val` is no misspelt `eval`."""

_PACKED = (".gz", ".zst")

_ONE_MISTAKE, _TWO_MISTAKES = 4, 8
"""The fewest letters of a word, as it exists, in which one mistake or two are a matter of spelling."""

_MOST = 2


def suggest_files(name: str, taken: Collection[str] = (), *, only_files: bool = False) -> str:
    """Return `" (did you mean a, b?)"` for the names beside a missing one that it may have meant, or an empty string.

    Two names are near if they differ in case, ending or separators, and in the letters of at most one word. Another
    word, another number or another purpose makes another file, which is never named.

    Args:
        name: The path, as typed.
        taken: Paths that are not meant, since other fields name them.
        only_files: Whether a folder cannot be meant.
    """
    path = expand_path(name)
    others = {expand_path(other) for other in (name, *taken)}
    try:
        entries = [entry for entry in path.parent.iterdir() if entry not in others]
    except (OSError, ValueError):
        return ""
    near = [entry.name for entry in entries if _may_be_meant(path.name, entry, only_files=only_files)]
    meant = [shlex.quote(str(Path(name).parent / entry)) for entry in near_words(path.name, near, _MOST, 0)]
    return f" (did you mean {', '.join(meant)}?)" if meant else ""


def _may_be_meant(typed: str, entry: Path, *, only_files: bool) -> bool:
    # A folder may have a million entries, and each look at one takes a message on a network file system.
    near = [has_ending for has_ending in (True, False) if _is_near(typed, entry.name, has_ending)]
    return bool(near) and path_is(entry, Path.is_file) in near and not (only_files and path_is(entry, Path.is_dir))


def _is_near(typed: str, name: str, has_ending: bool) -> bool:
    words, known = _words(typed, has_ending), _words(name, has_ending)
    if "".join(words) == "".join(known):
        return bool(words)
    different = [pair for pair in zip(words, known, strict=False) if pair[0] != pair[1]]
    return len(words) == len(known) and len(different) == 1 and _is_misspelt(*different[0])


def _words(name: str, has_ending: bool) -> list[str]:
    """Return the words and numbers of a name in lower case, without the ending that a file has."""
    path = Path(name.casefold())
    path = path.with_suffix("") if path.suffix in _PACKED else path
    is_ending = has_ending and path.suffix[1:2].isalpha() and _purpose(path.suffix[1:]) is None
    return re.findall(r"[^\W\d_]+|\d+", path.stem if is_ending else path.name)


def _is_misspelt(word: str, known: str) -> bool:
    if not (word.isalpha() and known.isalpha()) or _purpose(word) not in (None, _purpose(known)):
        return False
    most = (len(known) >= _ONE_MISTAKE) + (len(known) >= _TWO_MISTAKES)
    return _mistakes(word, known) <= most


def _purpose(word: str) -> str | None:
    return next((purpose for purpose in _PURPOSES if word.startswith(purpose)), None)


def _mistakes(one: str, other: str) -> int:
    """Return how many letters are missing, added, wrong or exchanged with the next (optimal string alignment)."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, start=1):
        row = [i]
        for j, against in enumerate(other, start=1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != against))
            if i > 1 and j > 1 and (letter, one[i - 2]) == (other[j - 2], against):
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]
