"""Megatron's indexed datasets: tokens in a .bin file, and where its documents begin in an .idx file.

The form is that of megatron.core.datasets.indexed_dataset: `MMIDIDX` and two zero bytes, the version 1 in 8 bytes,
the code of the type of tokens in one byte, the numbers of sequences and of document borders in 8 bytes each; then the
length of each sequence (int32), its place in bytes (int64), and the sequence at which each document begins (int64).
"""

import json
import struct
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from neva_recipes.config import DataError, PlainTable

__all__ = [
    "INDEX_ENDING",
    "TOKENS_ENDING",
    "TOKENS_FILE",
    "IndexedTokens",
    "TokenType",
    "index_header",
    "indexed_documents",
    "indexed_tokens",
    "is_indexed",
    "other_tokenizer",
    "token_type",
    "tokens_file",
]

INDEX_ENDING, TOKENS_ENDING = ".idx", ".bin"

TOKENS_FILE = "tokens.json"
"""Says, beside indexed datasets, what they were made of and with which tokenizer."""

_HEADER = struct.Struct("<9sQBQQ")
_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1

_BYTES_OF_SEQUENCE, _BYTES_OF_DOCUMENT = 4 + 8, 8

_LOOKED_AT = 2**20

_AT_ONCE = 2**12
"""Documents whose places are read together."""

_FEW = 65500
"""The size of a vocabulary from which on Megatron takes 32 bits (DType.optimal_dtype)."""


class TokenType(NamedTuple):
    """The type of tokens in a file.

    Attributes:
        code: Its number in the index.
        size: Bytes of a token.
        array: Its letter in Python's module array.
    """

    code: int
    size: int
    array: str


_TYPES = {kind.code: kind for kind in (TokenType(8, 2, "H"), TokenType(4, 4, "i"))}
"""The types that Megatron writes for tokens, uint16 and int32."""


class IndexedTokens(NamedTuple):
    """An indexed dataset, as far as its index says.

    Attributes:
        path: The index.
        kind: The type of its tokens.
        sequences: Number of its sequences.
        documents: Number of its documents.
        tokens: Number of its tokens.
        made: What `TOKENS_FILE` beside it says; empty if Megatron's own tools wrote it.
    """

    path: Path
    kind: TokenType
    sequences: int
    documents: int
    tokens: int
    made: PlainTable

    @property
    def prefix(self) -> str:
        """The path without its ending, by which Megatron names it."""
        return str(self.path)[: -len(INDEX_ENDING)]

    @property
    def vocabulary(self) -> str | None:
        """Digest of the vocabulary of its tokenizer; `None` if unknown."""
        tokenizer = self.made.get("tokenizer")
        digest = tokenizer.get("vocabulary") if isinstance(tokenizer, dict) else None
        return digest if isinstance(digest, str) else None


def token_type(vocab_size: int) -> TokenType:
    """Return the type that Megatron takes for the tokens of a vocabulary."""
    return _TYPES[8 if vocab_size < _FEW else 4]


def is_indexed(path: Path) -> bool:
    """Return whether a data file is the index of an indexed dataset, by its ending."""
    return path.name.endswith(INDEX_ENDING)


def tokens_file(path: Path) -> Path:
    """Return the file with the tokens of an index."""
    return path.with_name(path.name[: -len(INDEX_ENDING)] + TOKENS_ENDING)


def other_tokenizer(found: IndexedTokens, vocabulary: str, size: int) -> str | None:
    """Return why tokens are not those of a tokenizer; `None` if nothing says so.

    If it is not known what they were made with, the first million of them show whether the tokenizer is too small.

    Args:
        found: The tokens.
        vocabulary: Digest of the vocabulary of the tokenizer.
        size: One more than its largest id.

    Raises:
        DataError: The tokens cannot be read.
    """
    if found.vocabulary is not None:
        if found.vocabulary == vocabulary:
            return None
        name = found.made["tokenizer"].get("name", "another one")
        return f"its tokens are those of another tokenizer, {name}: take that one, or make them again with this one"
    try:
        with tokens_file(found.path).open("rb") as file:
            largest = max(array(found.kind.array, file.read(_LOOKED_AT * found.kind.size)), default=0)
    except OSError as error:
        raise DataError(f"{tokens_file(found.path)}: cannot be read: {error.strerror}") from None
    if largest < size:
        return None
    return f"it holds the token {largest:,}, and the tokenizer has {size:,}: it was made with another one"


def indexed_documents(found: IndexedTokens) -> Iterator["array[int]"]:
    """Yield the tokens of each document, in 32 bits whatever the file has.

    Raises:
        DataError: A file cannot be read, or is damaged.
    """
    borders_at = _HEADER.size + found.sequences * _BYTES_OF_SEQUENCE
    try:
        with found.path.open("rb") as index, tokens_file(found.path).open("rb") as tokens:
            for start in range(0, found.documents, _AT_ONCE):
                count = min(_AT_ONCE, found.documents - start) + 1
                borders = _numbers(index, "q", borders_at + _BYTES_OF_DOCUMENT * start, count)
                lengths = _numbers(index, "i", _HEADER.size + 4 * borders[0], borders[-1] - borders[0])
                for begin, end in pairwise(border - borders[0] for border in borders):
                    size = found.kind.size * sum(lengths[begin:end])
                    yield array("i", array(found.kind.array, tokens.read(size)))
    except OSError as error:
        raise DataError(f"{found.path}: cannot be read: {error.strerror}") from None
    except (ValueError, IndexError):
        raise DataError(f"{found.path}: is damaged") from None


def _numbers(file: BinaryIO, letter: str, place: int, count: int) -> "array[int]":
    file.seek(place)
    numbers: array[int] = array(letter)
    numbers.frombytes(file.read(numbers.itemsize * count))
    return numbers


def index_header(kind: TokenType, documents: int) -> bytes:
    """Return the begin of an index of documents that are one sequence each."""
    return _HEADER.pack(_MAGIC, _VERSION, kind.code, documents, documents + 1)


def indexed_tokens(path: Path) -> IndexedTokens:
    """Read the header of an index, and compare it with the sizes of both files.

    Raises:
        DataError: A file cannot be read, is truncated, or is no indexed dataset of tokens.
    """
    tokens = tokens_file(path)
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        index_size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise DataError(f"{path}: is no index of Megatron's, which begins with {_MAGIC[:7].decode()}")
    _, version, code, sequences, borders = _HEADER.unpack(header)
    if version != _VERSION or code not in _TYPES:
        raise DataError(f"{path}: has version {version} and tokens of type {code}: expected version 1, and type 4 or 8")
    expected = _HEADER.size + sequences * _BYTES_OF_SEQUENCE + borders * _BYTES_OF_DOCUMENT
    if index_size != expected:
        raise DataError(f"{path}: has {index_size:,} bytes, expected {expected:,}: it is truncated or damaged")
    try:
        size = tokens.stat().st_size
    except OSError as error:
        raise DataError(f"{tokens}: cannot be read: {error.strerror}: it holds the tokens of {path.name}") from None
    kind = _TYPES[code]
    if size != _end_of_last(path, kind, sequences):
        raise DataError(f"{tokens}: has {size:,} bytes, and {path.name} says otherwise: it is truncated or damaged")
    return IndexedTokens(path, kind, sequences, borders - 1, size // kind.size, _made(path.with_name(TOKENS_FILE)))


def _end_of_last(path: Path, kind: TokenType, sequences: int) -> int:
    """Return where the last sequence ends, in bytes."""
    if not sequences:
        return 0
    with path.open("rb") as file:
        file.seek(_HEADER.size + 4 * (sequences - 1))
        (length,) = struct.unpack("<i", file.read(4))
        file.seek(_HEADER.size + 4 * sequences + 8 * (sequences - 1))
        (begin,) = struct.unpack("<q", file.read(8))
    return int(begin + length * kind.size)


def _made(path: Path) -> PlainTable:
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())[:160]}") from None
    if not isinstance(made, dict):
        raise DataError(f"{path}: cannot be read: expected a JSON object")
    return made
