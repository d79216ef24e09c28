"""Merges SentencePiece models of BPE: new pieces stand behind those of the base, and lose to them."""

from collections.abc import Collection, Iterator
from typing import Any

from neva_recipes.config import DataError
from neva_recipes.tokenizers._producible import lost_pieces
from neva_recipes.tokenizers._sentencepiece_files import SentencePieceFile, piece_ids
from neva_recipes.tokenizers.merging._union import Union

__all__ = ["unite_sentencepiece"]

_SETTINGS = {
    "normalizer_spec": ("name", "precompiled_charsmap", "add_dummy_prefix", "remove_extra_whitespaces"),
    "trainer_spec": ("treat_whitespace_as_suffix", "split_digits", "byte_fallback"),
}
"""Settings that say what the pieces of a model look like."""


def unite_sentencepiece(base: SentencePieceFile, new: SentencePieceFile) -> tuple[Any, Union]:
    """Return the model with the pieces of both, and what became of those of `new`.

    The pieces of BPE are merged in the order of their scores. New pieces score below all of the base, so two pieces of
    the base are merged as before, and only where the base would stop does a new piece begin.

    transformers merges in the order of ids, so new pieces stand in the order of their scores.

    Raises:
        DataError: A model is not BPE.
    """
    for file in (base, new):
        _require_bpe(file)
    known = piece_ids(base.model)
    kinds = base.model.SentencePiece
    normal = [piece for piece in new.model.pieces if piece.type == kinds.NORMAL]
    fresh = [piece.piece for piece in sorted(normal, key=lambda one: -one.score) if piece.piece not in known]
    first = len(known)
    places = lost_pieces(base.path, _extended(base.model, fresh), range(first, first + len(fresh)))
    lost = {fresh[number - first] for number in places}
    added = [piece for piece in fresh if piece not in lost]
    return _extended(base.model, added), Union(
        base_size=first,
        added=tuple(added),
        duplicates=len(normal) - len(fresh),
        unproducible=tuple(piece for piece in fresh if piece in lost),
        not_taken=tuple(_others(new.model, kinds.CONTROL, known)),
        whole_not_taken=tuple(_others(new.model, kinds.USER_DEFINED, known)),
        differences=tuple(_differences(base.model, new.model)),
    )


def _others(model: Any, kind: int, known: Collection[str]) -> Iterator[str]:
    yield from (piece.piece for piece in model.pieces if piece.type == kind and piece.piece not in known)


def _require_bpe(file: SentencePieceFile) -> None:
    trainer = file.model.trainer_spec
    if trainer.model_type != trainer.BPE:
        kind = trainer.ModelType.Name(trainer.model_type).lower()
        raise DataError(
            f"{file.path}: is a {kind} model, and only BPE models are merged: there the pieces of the base come first; "
            f"in a {kind} model every new piece changes how old text is cut"
        )


def _extended(model: Any, pieces: list[str]) -> Any:
    """Return a model with normal pieces behind its own, each with a score below the one before it."""
    found = type(model)()
    found.CopyFrom(model)
    normal = [piece.score for piece in model.pieces if piece.type == model.SentencePiece.NORMAL]
    lowest = min(normal, default=0.0)
    # Scores have 24 bits: a step of one would be lost below -16,777,216.
    step = max(1.0, abs(lowest) * 2.0**-20)
    for place, piece in enumerate(pieces, start=1):
        found.pieces.add(piece=piece, score=lowest - place * step)
    return found


def _differences(base: Any, new: Any) -> Iterator[str]:
    for spec, names in _SETTINGS.items():
        for name in names:
            mine, other = (getattr(getattr(model, spec), name) for model in (base, new))
            if mine != other:
                yield "the table of the normaliser" if isinstance(mine, bytes) else f"{name}={mine}, not {other}"
