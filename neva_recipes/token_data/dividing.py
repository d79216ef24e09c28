"""Which parts of a text get no document, before any of it is tokenized."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from neva_recipes.token_data._batches import read_batches
from neva_recipes.token_data._documents import Division, texts_of
from neva_recipes.token_data._inputs import text_files
from neva_recipes.token_data.settings import PARTS, SEED, Place, Settings, split_weights

__all__ = ["Lacking", "lacking_parts"]

_MOST_BYTES = 64 * 2**20
"""A part that has no document in so much text has hardly any weight, and is left to the making."""

_OTHERS = ("95,5", "90,10", "80,20", "70,30", "50,50")
"""Weights that give a small text more validation."""


class Lacking(NamedTuple):
    """Parts that no document falls into.

    Attributes:
        parts: Their names.
        documents: Number of documents.
        other: Weights with which training and validation both get one; `None` if none of the usual do.
    """

    parts: list[str]
    documents: int
    other: str | None


def lacking_parts(
    named: Sequence[Path], split: Sequence[float], *, json_keys: Sequence[str], seed: int = SEED
) -> Lacking | None:
    """Return the parts with a weight that no document falls into; `None` if each gets one, or the text is large.

    It reads until each part has a document, which a text of more than a few pages soon gives it.

    Args:
        named: Files of text and folders of them, as `make_token_data` takes them.
        split: The weights of the parts.
        json_keys: The fields that hold text; each is a document.
        seed: Decides which documents each part gets.

    Raises:
        UserError: A file cannot be used.
    """
    files, _ = text_files(named)
    settings = Settings(tuple(files), Path(), tuple(json_keys), append_eod=False, split=tuple(split), seed=seed)
    division = Division(split, seed)
    others = {other: Division(split_weights(other), seed) for other in _OTHERS}
    left = {number for number, weight in enumerate(split) if weight}
    found: dict[str, set[int]] = {other: set() for other in others}
    documents = size = 0
    with tempfile.TemporaryDirectory() as scratch:
        for batch in read_batches(settings, Place(), Path(scratch)):
            for number, record in enumerate(batch.records, batch.place.record):
                fields = texts_of(batch, number, record, json_keys)
                if not (count := sum(bool(text.strip()) for text in fields)):
                    continue
                documents, size = documents + count, size + sum(map(len, fields))
                left.discard(division.part_of(fields))
                if not left or size > _MOST_BYTES:
                    return None
                for other, parts in found.items():
                    parts.add(others[other].part_of(fields))
    enough = next((other for other, parts in found.items() if parts == {0, 1}), None)
    return Lacking([PARTS[number] for number in sorted(left)], documents, enough)
