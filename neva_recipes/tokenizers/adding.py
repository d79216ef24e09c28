"""Adds tokens to a SentencePiece model: its other pieces keep ids, scores and types."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError
from neva_recipes.prompts.tokens.whole_tokens import EXTRA_TOKENS
from neva_recipes.tokenizers._sentencepiece_files import loaded, open_sentencepiece, piece_ids, type_name

__all__ = ["Addition", "add_tokens"]


@dataclass(frozen=True)
class Addition:
    """What became of tokens that were to be added.

    Attributes:
        size: Pieces of the new model.
        added: Id of every token that was added.
        present: Id of every token that was there already, with the same type.
        unreachable: Added tokens that SentencePiece does not find in a text of that token alone.
        drops_json: Whether a tokenizer.json was left out, which has the old vocabulary.
    """

    size: int
    added: dict[str, int]
    present: dict[str, int]
    unreachable: tuple[str, ...]
    drops_json: bool


def add_tokens(source: str, target: Path, tokens: Sequence[str] = EXTRA_TOKENS, *, control: bool = False) -> Addition:
    """Write a SentencePiece model with further pieces behind the others.

    Args:
        source: A .model file, a directory with tokenizer.model, or a hub name.
        target: The file to write for a file, otherwise the directory; must not exist yet.
        tokens: The tokens, in the order of their ids.
        control: Add control pieces, which SentencePiece never finds in a text, not user-defined ones, which it keeps
            whole.

    Raises:
        CheckpointError: The target exists or cannot be written.
        DataError: The model cannot be used, or a token cannot be added to it.
    """
    base = open_sentencepiece(source)
    model = type(base.model)()
    model.CopyFrom(base.model)
    kind = model.SentencePiece.CONTROL if control else model.SentencePiece.USER_DEFINED
    _require_tokens(tokens)
    ids = piece_ids(model)
    added, present = {}, {}
    for token in tokens:
        number = ids.get(token)
        if number is None:
            added[token] = len(model.pieces)
            model.pieces.add(piece=token, score=0.0, type=kind)
        elif model.pieces[number].type == kind:
            present[token] = number
        else:
            raise DataError(
                f"{base.path}: {token} is there already, as {type_name(model, number)} piece {number}: choose another "
                "token"
            )
    base.write(target, model, added | present, special=control)
    unreachable = () if control else tuple(_unreachable(loaded(base.path, model), added))
    return Addition(len(model.pieces), added, present, unreachable, base.has_json)


def _require_tokens(tokens: Sequence[str]) -> None:
    if not tokens:
        raise DataError("no token is given")
    for number, token in enumerate(tokens):
        if not token:
            raise DataError("a token is empty")
        if token in tokens[:number]:
            raise DataError(f"token {token} is given twice")
        if "\0" in token or not _is_text(token):
            raise DataError(f"token {token!r} is no text: it holds a zero byte or half a surrogate pair")


def _is_text(token: str) -> bool:
    try:
        token.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreachable(processor: Any, added: dict[str, int]) -> list[str]:
    return [token for token, number in added.items() if number not in processor.encode(token)]
