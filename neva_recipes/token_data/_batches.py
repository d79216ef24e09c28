"""Reads text files as batches of records, from any place on."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from neva_recipes.config import DataError
from neva_recipes.sources.content import content_blocks, is_made, open_content
from neva_recipes.sources.json_lines import is_json_lines
from neva_recipes.sources.records import require_no_json
from neva_recipes.storage.whole import reading_errors
from neva_recipes.token_data._inputs import is_parquet
from neva_recipes.token_data.settings import Place, Settings

__all__ = ["Batch", "read_batches"]

_BYTES = 2**20
"""Bytes of the records of a batch: large enough that handing it to another process costs little."""

_ROWS = 1024
_SKIPPED = 2**24


class Batch(NamedTuple):
    """Records that stand behind each other in a file.

    Attributes:
        path: The file.
        kind: `text` or `json` for lines, `rows` for rows of a table, `end` at the end of the file.
        place: Where they begin.
        end: Where they end.
        records: The records: lines, or a tuple of texts for each row.
    """

    path: Path
    kind: str
    place: Place
    end: Place
    records: Sequence[bytes | tuple[object, ...]]


def read_batches(settings: Settings, start: Place, scratch: Path) -> Iterator[Batch]:
    """Yield the records of the text files from a place on, and a batch without records where a file ends.

    Args:
        settings: What is read.
        start: The place.
        scratch: Folder for what a parquet file unpacks to.

    Raises:
        UserError: A file cannot be read.
        OSError: There is no room for what is unpacked.
    """
    for number, path in enumerate(settings.files[start.file :], start=start.file):
        place = start if number == start.file else Place(number)
        yield from _rows(path, place, settings, scratch) if is_parquet(path) else _lines(path, place)
        yield Batch(path, "end", Place(number), Place(number + 1), ())


def _lines(path: Path, place: Place) -> Iterator[Batch]:
    kind = "json" if is_json_lines(path) else "text"
    if kind == "text":
        require_no_json(path)
    with open_content(path) as file:
        if is_made(path):
            skipped = 0
            while part := file.read(min(_SKIPPED, place.offset - skipped)):
                skipped += len(part)
        else:
            file.seek(place.offset)
        while lines := file.readlines(_BYTES):
            end = Place(place.file, place.record + len(lines), place.offset + sum(map(len, lines)))
            yield Batch(path, kind, place, end, lines)
            place = end


def _rows(path: Path, place: Place, settings: Settings, scratch: Path) -> Iterator[Batch]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path}: parquet is read by pyarrow: pip install 'neva-recipes[text]'") from None
    with _seekable(path, scratch) as opened:
        try:
            file = parquet.ParquetFile(opened)
            _require_columns(path, file.schema_arrow, settings.json_keys, pyarrow)
            first = place.record - 1
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                skipped, first = min(first, size), max(0, first - size)
                if skipped == size:
                    continue
                for rows in file.iter_batches(_ROWS, row_groups=[group], columns=list(settings.json_keys)):
                    records = list(zip(*(rows.column(key).to_pylist() for key in settings.json_keys), strict=True))
                    records, skipped = records[skipped:], max(0, skipped - len(records))
                    end = place._replace(record=place.record + len(records))
                    if records:
                        yield Batch(path, "rows", place, end, records)
                    place = end
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: row {place.record} or one behind it is not UTF-8 text: {error.reason}") from None
        except (pyarrow.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path}: cannot be read as parquet, in row {place.record} or behind: {reason}") from None


def _require_columns(path: Path, schema: Any, keys: Sequence[str], pyarrow: Any) -> None:
    for key in keys:
        if key not in schema.names:
            raise DataError(f"{path}: has no column {key!r}, but {', '.join(schema.names)} (--json-keys names others)")
        kind = schema.field(key).type
        kind = getattr(kind, "value_type", kind)  # of a dictionary
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise DataError(f"{path}: the column {key!r} holds {kind}, expected strings")


@contextlib.contextmanager
def _seekable(path: Path, scratch: Path) -> Iterator[Any]:
    """Open a file that is read at any place; what is compressed is unpacked first.

    Raises:
        CheckpointError: The file cannot be read.
        OSError: There is no room for what is unpacked.
    """
    if not is_made(path):
        with reading_errors(path):
            file = path.open("rb")
        with file:
            yield file
        return
    with tempfile.TemporaryFile(dir=scratch) as unpacked:
        for block in content_blocks(path):
            unpacked.write(block)
        unpacked.seek(0)
        yield unpacked
