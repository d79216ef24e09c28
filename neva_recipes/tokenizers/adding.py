"""Adds tokens to a tokenizer: its other tokens keep ids, scores and types."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError, path_is
from neva_recipes.prompts.tokens.vocabulary import next_id
from neva_recipes.prompts.tokens.whole_tokens import EXTRA_TOKENS, configured_tokens
from neva_recipes.storage.exports import require_new
from neva_recipes.tokenizers._byte_level_files import add_outside, backend_of, read_json
from neva_recipes.tokenizers._places import (
    CONFIG_FILE,
    JSON_FILE,
    MODEL_FILE,
    carried_files,
    declaring_configuration,
    find_tokenizer,
    settings_of,
)
from neva_recipes.tokenizers._sentencepiece_files import (
    SentencePieceFile,
    loaded,
    open_place,
    piece_ids,
    type_name,
)
from neva_recipes.tokenizers._writing import write_directory

__all__ = ["Addition", "add_tokens"]


@dataclass(frozen=True)
class Addition:
    """What became of tokens that were to be added.

    Attributes:
        size: One more than the largest id of the new tokenizer.
        added: Id of every token that was added.
        present: Id of every token that was there already, with the same type.
        unreachable: Added tokens that SentencePiece does not find in a text of that token alone.
        is_sentencepiece: Whether the tokenizer is a SentencePiece model, not a tokenizer.json.
        drops_json: Whether a tokenizer.json was left out, which has the old vocabulary.
    """

    size: int
    added: dict[str, int]
    present: dict[str, int]
    unreachable: tuple[str, ...] = ()
    is_sentencepiece: bool = True
    drops_json: bool = False


def add_tokens(source: str, target: Path, tokens: Sequence[str] = EXTRA_TOKENS, *, control: bool = False) -> Addition:
    """Write a tokenizer with further tokens behind the others.

    Args:
        source: A .model file, a directory with tokenizer.model or tokenizer.json, or a hub name.
        target: The file to write for a file, otherwise the directory; must not exist yet.
        tokens: The tokens, in the order of their ids.
        control: Add special tokens, which no text becomes (control pieces of SentencePiece), not ones that texts keep
            whole (user-defined pieces).

    Raises:
        CheckpointError: The target exists or cannot be written.
        DataError: The tokenizer cannot be used, or a token cannot be added to it.
    """
    _require_tokens(tokens)
    place = find_tokenizer(source)
    if path_is(place / JSON_FILE) and not path_is(place / MODEL_FILE):
        require_new(target, "directory")
        return _added_to_json(place, target, tokens, special=control)
    return _added_to_sentencepiece(open_place(place), target, tokens, control=control)


def _added_to_sentencepiece(base: SentencePieceFile, target: Path, tokens: Sequence[str], *, control: bool) -> Addition:
    model = type(base.model)()
    model.CopyFrom(base.model)
    kind = model.SentencePiece.CONTROL if control else model.SentencePiece.USER_DEFINED
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
            raise _there_already(base.path, token, f"{type_name(model, number)} piece {number}")
    base.write(target, model, added | present, special=control)
    unreachable = () if control else tuple(_unreachable(loaded(base.path, model), added))
    return Addition(len(model.pieces), added, present, unreachable, drops_json=base.has_json)


def _added_to_json(folder: Path, target: Path, tokens: Sequence[str], *, special: bool) -> Addition:
    """Add tokens as transformers' add_tokens does; those that only the configuration has get their ids first."""
    from tokenizers import AddedToken

    path, layout = folder / JSON_FILE, read_json(folder)
    backend = backend_of(path, layout)
    add_outside(backend, folder, layout)
    known: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    own = {token.content: number for number, token in backend.get_added_tokens_decoder().items()}
    entries = configured_tokens(layout.get("added_tokens") or [], settings_of(folder), own)
    kinds = {entry["content"]: bool(entry["special"]) for entry in entries}
    present = {token: known[token] for token in tokens if token in known}
    for token, number in present.items():
        if kinds.get(token) is not special:
            kind = {None: "normal", True: "special", False: "non-special"}[kinds.get(token)]
            raise _there_already(path, token, f"{kind} token {number}")
    backend.add_tokens([AddedToken(token, normalized=False, special=special) for token in tokens if token not in known])
    added = {token: backend.token_to_id(token) for token in tokens if token not in known}
    layout["added_tokens"] = json.loads(backend.to_str())["added_tokens"]
    contents = {JSON_FILE: (json.dumps(layout, indent=2, ensure_ascii=False) + "\n").encode()}
    configuration = folder / CONFIG_FILE
    if added and settings_of(folder).get("added_tokens_decoder"):
        contents[CONFIG_FILE] = declaring_configuration(configuration, added, special=special)
    write_directory(target, contents, carried_files(folder))
    return Addition(next_id({**known, **added}), added, present, is_sentencepiece=False)


def _there_already(path: Path, token: str, what: str) -> DataError:
    return DataError(f"{path}: {token} is there already, as {what}: choose another token")


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
