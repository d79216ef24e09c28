"""The text files: those that are named, and those of folders that are named."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from neva_recipes.config import DataError, PlainTable, how_many
from neva_recipes.sources.registry import find_source, plain_name

__all__ = ["FileState", "file_states", "is_parquet", "text_files"]

_ENDINGS = (".jsonl", ".txt", ".parquet")

_NAMED = 3

FileState = PlainTable


def is_parquet(path: Path) -> bool:
    """Return whether a file is parquet, by its ending."""
    return plain_name(path).endswith(".parquet")


def text_files(named: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the text files, and a note for each folder that holds others.

    Of a folder these are the files below it that end in .jsonl, .txt, .parquet, or as a package reads them, also with
    .gz or .zst, in the order of their paths; what is hidden is left out.

    Raises:
        DataError: A file or folder cannot be read, a folder holds no text files, or a file is named twice.
    """
    files, notes = list[Path](), list[str]()
    for path in named:
        if not path.is_dir():
            files.append(path)
            continue
        below = sorted(_below(path))
        texts = [file for file in below if plain_name(file).endswith(_ENDINGS) or find_source(file) is not None]
        others = [str(file.relative_to(path)) for file in below if file not in set(texts)]
        if not texts:
            raise DataError(f"{path}: holds no text files: expected {', '.join(_ENDINGS)}, also with .gz or .zst")
        if others:
            more = ", ..." if len(others) > _NAMED else ""
            left_out = f"{how_many(len(others), 'file')} of other kinds left out: {', '.join(others[:_NAMED])}{more}"
            notes.append(f"{path}: {left_out}")
        files += texts
    seen = set[Path]()
    for file in files:
        if file.resolve() in seen:
            raise DataError(f"{file}: is named twice")
        seen.add(file.resolve())
    return files, notes


def _below(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}")

    for inner, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(inner, name) for name in names if not name.startswith("."))


def file_states(files: Sequence[Path]) -> list[FileState]:
    """Return what tells each file from itself after a change.

    Raises:
        DataError: A file is not there, or is none.
    """
    states = list[FileState]()
    for path in files:
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        if not path.is_file():
            raise DataError(f"{path}: is no file and no folder")
        states.append({"path": str(path.absolute()), "bytes": found.st_size, "modified": found.st_mtime_ns})
    return states
