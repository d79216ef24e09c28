"""Mends the names of images whose ending is not that of their content: copies, and a data file that names them."""

import filecmp
import json
import os
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from neva_recipes.config import PlainTable
from neva_recipes.data_tools.report import FileReport
from neva_recipes.sources.content import is_made
from neva_recipes.sources.json_lines import is_json_lines
from neva_recipes.sources.records import scan_samples
from neva_recipes.storage.exports import cannot_be_written
from neva_recipes.storage.whole import copy_file, written_whole

__all__ = ["Fixed", "fix_endings", "fixed_file"]


class Fixed(NamedTuple):
    """What was mended.

    Attributes:
        path: The data file that was written.
        samples: Samples of it that name another file than before.
        copies: Images that were copied.
    """

    path: Path
    samples: int
    copies: int


def fixed_file(path: Path) -> Path:
    """Return the name of the mended data file: `mix.json` becomes `mix.fixed.json`."""
    lines = is_json_lines(path)
    name = path.name
    for ending in (".gz", ".zst", ".jsonl", ".json"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return path.with_name(f"{name}.fixed.{'jsonl' if lines else 'json'}")


def fix_endings(file: FileReport, folder: Path) -> Fixed | None:
    """Copy images under their right endings, and write the data file anew with their names.

    No file that is there is changed.

    Args:
        file: What was found in a data file.
        folder: Folder of its images.

    Returns:
        What was mended; `None` if there is nothing to mend.

    Raises:
        CheckpointError: The new data file exists already, or something cannot be written or read.
    """
    if not file.endings:
        return None
    copies = 0
    names: dict[str, str] = {}
    for _, name, ending in file.endings:
        if name not in names:
            names[name], copied = _rightly_named(folder, name, ending)
            copies += copied
    numbers = {number for number, *_ in file.endings}
    target = fixed_file(file.path)
    with written_whole(target, "file") as path, path.open("wb") as writing:
        _write(file.path, writing, numbers, names)
    return Fixed(target, len(numbers), copies)


def _rightly_named(folder: Path, name: str, ending: str) -> tuple[str, bool]:
    """Return the name of an image under another ending, and whether it was copied."""
    source = folder / name
    for middle in ("", *(f".{number}" for number in range(1, 100))):
        right = str(PurePosixPath(name).with_suffix(f"{middle}{ending}"))
        target = folder / right
        if not os.path.lexists(source):  # it is there under this ending already
            return right, False
        if not os.path.lexists(target):
            with written_whole(target, "file") as path:
                copy_file(source, path)
            return right, True
        if target.is_file() and filecmp.cmp(source, target, shallow=False):
            return right, False
    raise cannot_be_written(folder / name, OSError(f"{PurePosixPath(name).stem}.1{ending} to .99{ending} are there"))


def _write(source: Path, writing: BinaryIO, numbers: set[int], names: dict[str, str]) -> None:
    """Write a data file with other names in some samples; all other bytes stay, unless they were compressed."""
    if is_made(source):
        _write_records(source, writing, numbers, names)
        return
    with source.open("rb") as reading:
        for number, (offset, length, record) in enumerate(scan_samples(source)):
            if number in numbers:
                _copy(reading, writing, offset)
                writing.write(_renamed(record, names) + (b"\n" if _ends_line(reading, length) else b""))
        _copy(reading, writing, None)


def _ends_line(reading: BinaryIO, length: int) -> bool:
    """Pass over a record, and return whether its bytes hold the end of its line."""
    return reading.read(length).endswith(b"\n")


def _copy(reading: BinaryIO, writing: BinaryIO, end: int | None) -> None:
    """Copy bytes up to a place, or to the end."""
    while block := reading.read(2**20 if end is None else min(2**20, end - reading.tell())):
        writing.write(block)


def _write_records(source: Path, writing: BinaryIO, numbers: set[int], names: dict[str, str]) -> None:
    lines = is_json_lines(source)
    writing.write(b"" if lines else b"[")
    for number, (_, _, record) in enumerate(scan_samples(source)):
        data = _renamed(record, names) if number in numbers else _dumped(record)
        writing.write(data + b"\n" if lines else (b",\n" if number else b"\n") + data)
    writing.write(b"" if lines else b"\n]\n")


def _renamed(record: PlainTable, names: dict[str, str]) -> bytes:
    return _dumped({field: _value(field, value, names) for field, value in record.items()})


def _value(field: str, value: object, names: dict[str, str]) -> object:
    if field not in ("image", "images"):
        return value
    if isinstance(value, list):
        return [names.get(each, each) if isinstance(each, str) else each for each in value]
    return names.get(value, value) if isinstance(value, str) else value


def _dumped(record: object) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")
