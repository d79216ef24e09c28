"""The content of data files: the file itself, what is unpacked of it, or its records as JSON lines."""

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from neva_recipes.config import POINTER, DataError, is_pointer, path_is
from neva_recipes.sources._zstd import ZSTD, DamagedZstdError, ZstdContent, can_unpack_zstd
from neva_recipes.sources.registry import find_source
from neva_recipes.sources.source import DataSource, JsonLines
from neva_recipes.user_code import reporting_mistakes

__all__ = ["SAVE_AS_UTF8", "Part", "content_blocks", "is_converted", "is_made", "open_content", "open_part"]

_GZIP = b"\x1f\x8b"
"""First bytes of gzip files. UTF-8 text never begins so, so a name need not end in .gz."""

_PACKED = {
    _GZIP: ("gzip", "gunzip -k"),
    b"BZh": ("bzip2", "bunzip2 -k"),
    b"\xfd7zXZ\x00": ("xz", "unxz -k"),
    ZSTD: ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}
"""First bytes of compressed files, their format, and the command that unpacks them and keeps the original."""

SAVE_AS_UTF8 = "save the file as UTF-8 (iconv -f LATIN1 -t UTF-8 turns Latin-1 into it)"
"""What to do about bytes that are not UTF-8."""

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks; in UTF-8 there are no such bytes."""

_TAR = (b"ustar\x0000", b"ustar  \x00")
_TAR_OFFSET = 257
"""Content of the first header of a tar archive, and its offset."""

_BUFFER = 2**17
_BLOCK = 2**20


class Part(NamedTuple):
    """The part of a data file that can be read at any place.

    Attributes:
        file: A plain file, or the beginning of a content that is made.
        size: Bytes in `file`.
        total: Bytes of the whole content; an estimate if `file` holds only the beginning.
        is_whole: Whether `file` holds all of it.
    """

    file: BinaryIO
    size: int
    total: int
    is_whole: bool


def is_made(path: Path) -> bool:
    """Return whether the content of a data file is made while it is read, so that it can only be read from its begin.

    That is so if the file is compressed with gzip or zstd, whatever its name, or of a format that a package reads.

    Raises:
        DataError: The file cannot be read.
        RecipeError: The package that reads it cannot be used.
    """
    with _named(path), path.open("rb") as file:
        return file.read(len(ZSTD)).startswith((_GZIP, ZSTD)) or find_source(path) is not None


def is_converted(path: Path) -> bool:
    """Return whether the content of a data file is made of its records, by the source of a package.

    Raises:
        RecipeError: The package that reads it cannot be used.
    """
    return find_source(path) is not None


@contextlib.contextmanager
def open_content(path: Path) -> Iterator[BinaryIO]:
    """Open a data file to read its content from the beginning.

    Raises:
        DataError: The file cannot be read, is damaged, is UTF-16, or is compressed with something other than gzip
            and zstd.
    """
    with _named(path), path.open("rb") as file:
        yield _content_of(path, file)


def content_blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a data file.

    Raises:
        DataError: The file cannot be read, is damaged, or is compressed with something other than gzip and
            zstd.
    """
    with open_content(path) as file:
        while block := file.read(_BLOCK):
            yield block


@contextlib.contextmanager
def open_part(path: Path, limit: int) -> Iterator[Part]:
    """Open a data file to read at any place.

    Args:
        path: The data file.
        limit: Bytes to make of a content, or slightly more.

    Raises:
        DataError: The file cannot be read, this part is damaged, or it is compressed with something other than gzip
            and zstd.
    """
    with _named(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = _content_of(path, file)
        if content is file:
            yield Part(file, size, size, is_whole=True)
            return
        data = content.read(limit)
        more = content.peek()
        data += more
        total = _estimated_size(file, size, len(data)) if more else len(data)
        yield Part(io.BytesIO(data), len(data), total, is_whole=not more)


class _Stepwise:
    """A file that is read in small steps, so that its position tells how much of it has been unpacked.

    From Python 3.12 on gzip reads 128 KiB ahead, which is more than all that is looked at of some files.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Return up to this many bytes."""
        return self._file.read(min(size, io.DEFAULT_BUFFER_SIZE))

    def seek(self, position: int) -> int:
        """Go to a place of the file."""
        return self._file.seek(position)


def _gunzipped(file: BinaryIO) -> io.BufferedReader:
    content: io.BufferedReader = io.BufferedReader(gzip.GzipFile(fileobj=_Stepwise(file)), _BUFFER)
    return content


def _estimated_size(file: BinaryIO, size: int, made: int) -> int:
    """Return about how large a content is of which only the beginning has been made.

    Args:
        file: The file that it is made of, read as far as was needed.
        size: Bytes of that file.
        made: Bytes of the content so far.
    """
    place = size if file.closed else file.tell()
    # What reads a file ahead, or has closed it, does not tell how much of it the beginning took.
    return round(made * size / place) if 0 < place < size else max(made, size)


def _content_of(path: Path, file: io.BufferedReader) -> io.BufferedReader:
    if is_pointer(file.peek()):
        raise DataError(f"{path}: {POINTER}")
    source = find_source(path)
    if source is None:
        return _unpacked(path, file)
    return io.BufferedReader(_records_of(path, source, _opened(path, file)), _BUFFER)


def _records_of(path: Path, source: DataSource, file: BinaryIO) -> JsonLines:
    @contextlib.contextmanager
    def watched() -> Iterator[None]:
        with reporting_mistakes(f"{path}: source {source.name}"), _named(path):
            try:
                yield
            except DataError as error:
                raise DataError(f"{path}: {error}") from None

    with watched():
        records = iter(source.records(file))
    return JsonLines(records, watched)


def _unpacked(path: Path, file: io.BufferedReader) -> io.BufferedReader:
    begin = file.peek()
    content = _opened(path, file)
    around = (
        "" if content is file else f"{_PACKED[ZSTD if begin.startswith(ZSTD) else _GZIP][0]}, and within that with "
    )
    _require_unpacked(path, content.peek(), around)
    return content


def _opened(path: Path, file: io.BufferedReader) -> io.BufferedReader:
    """Return what a file unpacks to; the file itself if it is not compressed."""
    begin = file.peek()
    if begin.startswith(_GZIP):
        return _gunzipped(file)
    if not begin.startswith(ZSTD):
        return file
    if not can_unpack_zstd():
        raise DataError(
            f"{path}: is compressed with zstd: unpack it first, with unzstd, or install what reads it: "
            "pip install 'neva-recipes[text]'"
        )
    content: io.BufferedReader = io.BufferedReader(ZstdContent(_Stepwise(file)), _BUFFER)
    return content


def _require_unpacked(path: Path, begin: bytes, around: str) -> None:
    if begin[_TAR_OFFSET:].startswith(_TAR):
        raise DataError(f"{path}: is a tar archive: unpack it first, with tar -xf")
    for magic, (kind, command) in _PACKED.items():
        if begin.startswith(magic):
            command = next((outer for kind, outer in _PACKED.values() if around.startswith(f"{kind},")), command)
            raise DataError(f"{path}: is compressed with {around}{kind}: unpack it first, with {command}")
    if begin.startswith(_UTF_16):
        raise DataError(f"{path}: is not UTF-8 text but UTF-16: save it as UTF-8, as iconv -f UTF-16 -t UTF-8 does")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the name of the data file to errors of reading; refuse the tokens of an indexed dataset as text."""
    if path.suffix == ".bin" and path_is(index := path.with_suffix(".idx")):
        raise DataError(f"{path}: holds the tokens of an indexed dataset: name {index.name} in its place")
    try:
        yield
    except EOFError:
        raise DataError(f"{path}: the compressed file ends too early: it is truncated, get it again") from None
    except (gzip.BadGzipFile, zlib.error, DamagedZstdError) as error:
        raise DataError(f"{path}: the compressed file is damaged, get it again: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
