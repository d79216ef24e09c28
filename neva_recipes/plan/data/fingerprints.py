"""Fingerprints of data files, which tell at little cost whether a file still holds what it held."""

import zlib
from dataclasses import dataclass
from functools import lru_cache

from neva_recipes.config import DataError, Recipe
from neva_recipes.plan.data.file_states import FileState, file_state, named_files
from neva_recipes.sources.indexed import is_indexed, tokens_file

__all__ = ["Fingerprint", "fingerprints"]

_WHOLE = 16 * 2**20
"""Bytes up to which a file, or several together, is read whole."""

_BLOCKS, _BLOCK = 64, 4 * 2**10
"""Blocks that are read of a larger file, and their bytes."""


@dataclass(frozen=True)
class Fingerprint:
    """What a data file held when it was looked at.

    Attributes:
        size: Its size in bytes.
        digest: CRC-32 of what was read of it, as `crc32:` and eight digits.
        is_whole: Whether all of it was read; otherwise blocks that are spread over it, with its begin and end.
    """

    size: int
    digest: str
    is_whole: bool


def fingerprints(recipe: Recipe, field: str) -> tuple[Fingerprint, ...]:
    """Return the fingerprint of each local file that a field names; an empty result if one of them cannot be read.

    An index has that of its tokens behind its own.
    """
    named = named_files(recipe, field)
    paths = [each for path in named for each in ((path, tokens_file(path)) if is_indexed(path) else (path,))]
    whole = max(_WHOLE // max(1, len(paths)), _BLOCKS * _BLOCK)
    try:
        return tuple(_fingerprint(file_state(path), whole) for path in paths)
    except (DataError, OSError):  # check_files reports it
        return ()


@lru_cache(maxsize=1024)
def _fingerprint(state: FileState, whole: int) -> Fingerprint:
    is_whole = state.size <= whole
    with state.path.open("rb") as file:
        if is_whole:
            value = zlib.crc32(file.read())
        else:
            value = 0
            for number in range(_BLOCKS):
                file.seek((state.size - _BLOCK) * number // (_BLOCKS - 1))
                value = zlib.crc32(file.read(_BLOCK), value)
    return Fingerprint(state.size, f"crc32:{value:08x}", is_whole)
