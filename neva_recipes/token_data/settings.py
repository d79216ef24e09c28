"""What determines the content of indexed datasets, and what is counted while they are made."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError

__all__ = ["PARTS", "SEED", "Counts", "Place", "Settings", "split_weights"]

PARTS = ("train", "validation", "test")
"""What documents are divided into, and the names of the files."""


SEED = 1234
"""The seed that is taken if none is given."""


def split_weights(text: str) -> list[float]:
    """Return the weight of each part, as a text such as 98,1,1 gives them.

    Raises:
        DataError: The text is none of weights, or the first part has none.
    """
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    usable = 0 < len(weights) <= len(PARTS) and all(math.isfinite(weight) and weight >= 0 for weight in weights)
    if not usable or not weights[0]:
        raise DataError(
            f"split {text!r}: expected one to three weights for {', '.join(PARTS)}, the first above 0, as 98,1,1"
        )
    return weights + [0.0] * (len(PARTS) - len(weights))


class Place(NamedTuple):
    """A place between two records of the input.

    Attributes:
        file: Number of the file, from 0.
        record: Number of the next record in it, from 1: a line, or a row of a parquet file.
        offset: Bytes of the file's content before it; 0 in a parquet file.
    """

    file: int = 0
    record: int = 1
    offset: int = 0


class Counts(NamedTuple):
    """What is counted.

    Attributes:
        documents: Documents that were written.
        empty: Blank lines, and documents without text or without tokens, which were not.
        tokens: Tokens of the documents, each with its end token.
        words: What stands between spaces in them.
        bytes: Bytes of their text in UTF-8.
    """

    documents: int = 0
    empty: int = 0
    tokens: int = 0
    words: int = 0
    bytes: int = 0

    def with_more(self, other: "Counts") -> "Counts":
        """Return the sum of both."""
        return Counts(*(one + more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Settings:
    """What determines the content of indexed datasets, apart from the content of the text files.

    Attributes:
        files: The text files.
        tokenizer: File or directory of the tokenizer.
        json_keys: The fields of a record of JSONL or parquet that hold text; each is a document.
        append_eod: Whether the tokenizer's end token stands behind each document.
        split: The weight of each part.
        seed: Decides which documents each part gets.
    """

    files: tuple[Path, ...]
    tokenizer: Path
    json_keys: tuple[str, ...]
    append_eod: bool
    split: tuple[float, ...]
    seed: int
