"""Which tokens of a vocabulary no text becomes.

What becomes a token within a longer text becomes it alone too: the merges within it are the same, in the same order. So
it is enough to look at each token alone, and one that is lost is no part of another one either.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from neva_recipes.tokenizers._sentencepiece_files import loaded

__all__ = ["lost_pieces", "parts_of"]

_SPACE = "\u2581"


def lost_pieces(path: Path, model: Any, numbers: Iterable[int]) -> set[int]:
    """Return the pieces of a SentencePiece model that their own text does not become.

    Args:
        path: The model's file, for an error.
        model: Its content, a `ModelProto`.
        numbers: The ids of the pieces to look at.

    Raises:
        DataError: SentencePiece refuses the model.
    """
    alone = type(model)()
    alone.CopyFrom(model)
    alone.normalizer_spec.add_dummy_prefix = False
    alone.normalizer_spec.remove_extra_whitespaces = False
    places = list(numbers)
    ids = loaded(path, alone).encode([model.pieces[number].piece.replace(_SPACE, " ") for number in places])
    return {number for number, row in zip(places, ids, strict=True) if row != [number]}


def parts_of(model: Any, token: str) -> list[str]:
    """Return the tokens that a token becomes alone.

    Args:
        model: A `tokenizers.models.BPE`.
        token: The token, as the vocabulary spells it.
    """
    return [part.value for part in model.tokenize(token)]
