"""Pointers of Git LFS: a clone made without it holds them in place of large files."""

from pathlib import Path

__all__ = ["POINTER", "is_pointer", "pointer_in_place"]

POINTER = "is a Git LFS pointer: git lfs pull fetches the file"

_FIRST_LINE = b"version https://git-lfs.github.com/spec/v1"
"""Source: docs/spec.md of git-lfs."""


def is_pointer(begin: bytes) -> bool:
    """Return whether the first bytes of a file are those of a pointer."""
    return begin.startswith(_FIRST_LINE)


def pointer_in_place(file: Path) -> str | None:
    """Return that a file that cannot be used is only a pointer, and what to do; `None` if it is none."""
    try:
        with file.open("rb") as stream:
            found = is_pointer(stream.read(len(_FIRST_LINE)))
    except OSError:
        return None
    return POINTER if found else None
