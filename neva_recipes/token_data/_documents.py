"""The documents of records, and the parts that they fall into: neither depends on a tokenizer."""

from collections.abc import Sequence
from hashlib import blake2b

from neva_recipes.config import DataError
from neva_recipes.sources.content import SAVE_AS_UTF8
from neva_recipes.sources.json_lines import parse_line
from neva_recipes.token_data._batches import Batch

__all__ = ["Division", "texts_of"]

_BOM = b"\xef\xbb\xbf"


class Division:
    """Divides records by their text."""

    def __init__(self, split: Sequence[float], seed: int) -> None:
        """Divide by the weights of the parts.

        Args:
            split: The weight of each part.
            seed: Decides which records each part gets.
        """
        total = sum(split)
        self._borders = [sum(split[: number + 1]) / total for number in range(len(split))]
        given = [number for number, weight in enumerate(split) if weight]
        self._only_part = given[0] if len(given) == 1 else None
        self._last_part = given[-1]
        self._seed = seed.to_bytes(8, "little", signed=True)

    def part_of(self, fields: Sequence[str]) -> int:
        """Return the part of a record by its text, so that copies of it are not divided."""
        if self._only_part is not None:
            return self._only_part
        digest = blake2b("\0".join(fields).encode(), digest_size=8, key=self._seed).digest()
        place = int.from_bytes(digest, "little") / 2**64
        return next((number for number, border in enumerate(self._borders) if place < border), self._last_part)


def texts_of(batch: Batch, number: int, record: bytes | tuple[object, ...], json_keys: Sequence[str]) -> Sequence[str]:
    """Return the documents of a record; a blank line is an empty one, and in JSONL none.

    Args:
        batch: Its batch.
        number: Its number in the file.
        record: The record.
        json_keys: The fields that hold text.

    Raises:
        DataError: It cannot be used.
    """
    where = f"{batch.path}: {'row' if batch.kind == 'rows' else 'line'} {number}"
    if isinstance(record, bytes):
        record = record.removeprefix(_BOM) if number == 1 else record
        if batch.kind == "text":
            return [_require_text(_line(record, where), where)]
        if not record.strip():
            return []
        values = parse_line(record, where)
        record = tuple(map(values.get, json_keys))
    for key, text in zip(json_keys, record, strict=True):
        if not isinstance(text, str):
            raise DataError(f'{where} has no "{key}" that is a string (--json-keys names others)')
    return [_require_text(text, where) for text in record if isinstance(text, str)]


def _line(record: bytes, where: str) -> str:
    try:
        return record.decode().strip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text: {error.reason}: {SAVE_AS_UTF8}") from None


def _require_text(text: str, where: str) -> str:
    if "\0" in text:
        raise DataError(f"{where} holds a zero byte: is it text?")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"{where} holds {text[error.start]!r}, half a surrogate pair, which is no character"
            raise DataError(message) from None
    return text
