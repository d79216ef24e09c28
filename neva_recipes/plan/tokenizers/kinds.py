"""The kinds of tokenizers that can be trained, and how many tokens each has at least."""

from typing import Literal

from neva_recipes.config import DataError

__all__ = ["END", "Kind", "require_vocabulary"]

Kind = Literal["sentencepiece", "byte-level"]

END = "<|endoftext|>"
"""The end token of a byte-level tokenizer."""

_BYTES = 256

_LEAST = {"sentencepiece": ("<unk>, <s>, </s>", _BYTES + 3), "byte-level": (END, _BYTES + 1)}
"""Tokens that every tokenizer of a kind has beside the bytes, and how many these and the bytes are."""


def require_vocabulary(vocab_size: int, kind: Kind) -> None:
    """Check that a tokenizer of a kind may have so few tokens.

    Raises:
        DataError: It may not.
    """
    names, least = _LEAST[kind]
    if vocab_size < least:
        raise DataError(f"a vocabulary of {vocab_size:,} is too small: the bytes and {names} alone are {least}")
