"""Which tokens of a tokenizer are new, and how the tokenizer before it splits them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, read_tokenizer
from neva_recipes.prompts.tokens.vocabulary import next_id

__all__ = ["new_tokens", "pieces_of", "read_here", "token_rows"]


def read_here(place: Path, *, use_im_start_end: bool = False) -> LocalTokenizer:
    """Return a tokenizer.

    Args:
        place: Its file or directory.
        use_im_start_end: Whether it has tokens around images.

    Raises:
        DataError: There is none that can be read without transformers.
    """
    tokenizer = read_tokenizer(place, use_im_start_end=use_im_start_end)
    if tokenizer is None:
        raise DataError(f"{place}: holds no tokenizer.json and no tokenizer.model, which tell the token of each row")
    return tokenizer


def token_rows(tokenizer: LocalTokenizer) -> int:
    """Return the rows that a tokenizer needs: one more than its largest id."""
    return next_id(tokenizer.tokens)


def new_tokens(old: LocalTokenizer, new: LocalTokenizer) -> dict[int, str]:
    """Return the tokens that a tokenizer has got, by their ids in order.

    Args:
        old: The tokenizer before.
        new: The tokenizer now.

    Raises:
        DataError: A token of the old one is gone or has another id, so that its row would belong to another token.
    """
    for token, number in sorted(old.tokens.items(), key=lambda entry: entry[1]):
        now = new.tokens.get(token)
        if now != number:
            place = "is gone" if now is None else f"has the id {now}"
            raise DataError(
                f"tokenizer {new.name}: {token!r}, which has the id {number} in {old.name}, {place}: the rows of the "
                "model belong to the old ids, so none of them may move"
            )
    known = set(old.tokens.values())
    added = {number: token for token, number in new.tokens.items() if token not in old.tokens}
    if taken := sorted(added.keys() & known):
        number = taken[0]
        raise DataError(f"tokenizer {new.name}: {added[number]!r} has the id {number}, which another token has already")
    return dict(sorted(added.items()))


def pieces_of(folder: Path, old: LocalTokenizer, new: LocalTokenizer) -> Callable[[str], list[int]]:
    """Return a function that splits a token of the new tokenizer into ids of the old one.

    Args:
        folder: The directory of the new tokenizer, whose files tell how its tokens are written.
        old: The tokenizer before.
        new: The tokenizer now.
    """
    letters = _byte_letters() if _is_byte_level(folder) else None
    written = _added_tokens(folder)

    def split(token: str) -> list[int]:
        if token in written or token in new.specials:
            return old.encode_text(token)
        if letters is None:
            return old.encode_text(token.replace("\u2581", " "))  # SentencePiece's sign for a space
        try:
            return old.encode_text(bytes(letters[letter] for letter in token).decode())
        except (KeyError, UnicodeDecodeError):  # bytes that are no whole character
            return [old.tokens[letter] for letter in token if letter in old.tokens]

    return split


def _is_byte_level(folder: Path) -> bool:
    """Return whether the tokens of a tokenizer.json are written in the letters that GPT-2 has for bytes."""
    decoder = _layout(folder).get("decoder") or {}
    return any(part.get("type") == "ByteLevel" for part in [decoder, *decoder.get("decoders", [])])


def _added_tokens(folder: Path) -> set[str]:
    return {token["content"] for token in _layout(folder).get("added_tokens") or []}


def _layout(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _byte_letters() -> dict[str, int]:
    """Return GPT-2's letters with their bytes (openai/gpt-2, `bytes_to_unicode`): printable bytes are themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}
