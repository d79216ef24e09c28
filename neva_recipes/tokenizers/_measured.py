"""A tokenizer as it is measured: its tokens with their places in a text, whatever its kind."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_recipes.config import PlainTable, path_is
from neva_recipes.prompts.tokens.plain_text import PlainTextEncoder, SentencePieceEncoder
from neva_recipes.prompts.tokens.vocabulary import next_id
from neva_recipes.prompts.tokens.whole_tokens import (
    WholeTokens,
    configured_tokens,
    listed_tokens,
    marked_pieces,
    uses_of,
)
from neva_recipes.tokenizers._byte_level_files import (
    add_outside,
    backend_of,
    encoding_with,
    is_byte_level,
    model_type,
    read_json,
    unusual_settings,
)
from neva_recipes.tokenizers._places import JSON_FILE, find_tokenizer, outside_tokens, settings_of
from neva_recipes.tokenizers._producible import lost_pieces, parts_of
from neva_recipes.tokenizers._sentencepiece_files import SentencePieceFile, loaded, open_place

__all__ = ["MeasuredTokenizer", "open_measured"]

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")

_REPLACED = "\ufffd"
"""What a decoder writes for bytes that are no character."""


@dataclass(frozen=True)
class MeasuredTokenizer:
    """A tokenizer that can be measured.

    Attributes:
        name: How it was named.
        size: One more than its largest id.
        encode: Returns the tokens of a text as in training: their ids, and the place of the character at which each
            begins.
        decode: Returns the text of ids.
        tokens: The token of every id.
        unknown: Ids that stand for text that has no token.
        partial: Ids that stand for bytes which are no whole character.
        lost: Returns the tokens that no text becomes, special tokens left out; `None` if this is not known for the
            kind of the tokenizer.
    """

    name: str
    size: int
    encode: Callable[[str], tuple[list[int], list[int]]]
    decode: Callable[[Sequence[int]], str]
    tokens: dict[int, str]
    unknown: frozenset[int]
    partial: frozenset[int]
    lost: Callable[[], tuple[str, ...] | None]


def open_measured(name: str) -> MeasuredTokenizer:
    """Open a tokenizer that is named as data.tokenizer is.

    Raises:
        DataError: There is none, or it cannot be used.
    """
    place = find_tokenizer(name)
    if path_is(place / JSON_FILE):
        return _of_json(name, place, read_json(place))
    return _of_sentencepiece(name, open_place(place))


def _of_sentencepiece(name: str, file: SentencePieceFile) -> MeasuredTokenizer:
    model, settings = file.model, file.settings
    own = marked_pieces(model, settings) + listed_tokens(file.outside)
    added = {token["content"]: token["id"] for token in own} | file.named
    whole = WholeTokens(configured_tokens(own, settings, added), uses_of(settings))
    encoder = SentencePieceEncoder(model, whole, "always" if settings.get("legacy") else "first")
    decoder = loaded(file.path, _with_pieces(model, whole.ids))

    def ids_of(kind: int) -> frozenset[int]:
        return frozenset(number for number, piece in enumerate(model.pieces) if piece.type == kind)

    return MeasuredTokenizer(
        name=name,
        size=max(len(model.pieces), next_id({**file.outside, **file.named})),
        encode=encoder.located,
        decode=lambda ids: str(decoder.decode(list(ids))),
        tokens={**{number: piece.piece for number, piece in enumerate(model.pieces)}, **_by_id(whole.ids)},
        unknown=ids_of(model.SentencePiece.UNKNOWN),
        partial=ids_of(model.SentencePiece.BYTE),
        lost=lambda: _lost_of_sentencepiece(file, ids_of(model.SentencePiece.NORMAL)),
    )


def _by_id(ids: Mapping[str, int]) -> dict[int, str]:
    return {number: token for token, number in ids.items()}


def _with_pieces(model: Any, ids: Mapping[str, int]) -> Any:
    """Return a copy of a model that can decode tokens which stand behind its pieces."""
    found = type(model)()
    found.CopyFrom(model)
    tokens = _by_id(ids)
    for number in range(len(model.pieces), next_id(ids)):
        found.pieces.add(piece=tokens.get(number, f"<{number}>"), score=0.0, type=model.SentencePiece.USER_DEFINED)
    return found


def _lost_of_sentencepiece(file: SentencePieceFile, normal: frozenset[int]) -> tuple[str, ...] | None:
    trainer = file.model.trainer_spec
    if trainer.model_type not in (trainer.BPE, trainer.UNIGRAM):
        return None
    return tuple(
        file.model.pieces[number].piece for number in sorted(lost_pieces(file.path, file.model, sorted(normal)))
    )


def _of_json(name: str, folder: Path, layout: PlainTable) -> MeasuredTokenizer:
    path, settings = folder / JSON_FILE, settings_of(folder)
    backend = backend_of(path, layout)
    outside = outside_tokens(folder)
    add_outside(backend, folder, layout)
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    added = {token.content: number for number, token in backend.get_added_tokens_decoder().items()}
    tokens = configured_tokens(layout.get("added_tokens") or [], settings, added)
    with encoding_with(path):
        encoder = PlainTextEncoder(copy.deepcopy(layout) | {"added_tokens": tokens}, uses_of(settings))

    def encode(text: str) -> tuple[list[int], list[int]]:
        with encoding_with(path):
            return encoder.located(text)

    return MeasuredTokenizer(
        name=name,
        size=max([*vocabulary.values(), *outside.values()], default=-1) + 1,
        encode=encode,
        decode=lambda ids: str(backend.decode(list(ids), skip_special_tokens=False)),
        tokens=_by_id(vocabulary),
        unknown=_unknown(layout["model"], vocabulary),
        partial=_partial(backend, layout),
        lost=lambda: _lost_of_json(path, backend, layout),
    )


def _lost_of_json(path: Path, backend: Any, layout: PlainTable) -> tuple[str, ...] | None:
    if model_type(layout) != "BPE" or unusual_settings(layout):
        return None
    special = {token.content for token in backend.get_added_tokens_decoder().values()}
    vocabulary = backend.get_vocab(with_added_tokens=False)
    normal = (token for token in sorted(vocabulary, key=vocabulary.__getitem__) if token not in special)
    with encoding_with(path):
        return tuple(
            token for token in normal if not _BYTE.fullmatch(token) and parts_of(backend.model, token) != [token]
        )


def _unknown(model: PlainTable, vocabulary: dict[str, int]) -> frozenset[int]:
    token = model.get("unk_token")
    named = vocabulary.get(token) if isinstance(token, str) else None
    number = model.get("unk_id") if model.get("type") == "Unigram" else named
    return frozenset() if number is None else frozenset([number])


def _partial(backend: Any, layout: PlainTable) -> frozenset[int]:
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=False)
    if not is_byte_level(layout):
        return frozenset(number for token, number in vocabulary.items() if _BYTE.fullmatch(token))
    from tokenizers.decoders import ByteLevel

    decoder = ByteLevel()
    return frozenset(number for token, number in vocabulary.items() if _REPLACED in decoder.decode([token]))
