"""The tokens of a tokenizer that prompts of a training can contain."""

import hashlib
import json
from collections.abc import Collection, Mapping

__all__ = ["IMAGE_TOKEN", "count_tokens", "next_id", "vocabulary_digest"]

IMAGE_TOKEN = "<image>"
"""The token for an image in transformers; here an image has positions without a token."""


def next_id(ids: Mapping[str, int]) -> int:
    """Return one more than the largest id of a vocabulary: its size, and the id of the next new token."""
    return max(ids.values(), default=-1) + 1


def count_tokens(ids: Mapping[str, int], specials: Collection[str], pad_token: str | None) -> int:
    """Return one more than the largest id of a token that can occur in a prompt.

    transformers adds a token for images to the tokenizer of a LLaVA, and usually a padding token after it. Neither
    reaches the model here, so neither needs a row of the embedding.

    Args:
        ids: Every token with its id.
        specials: The special tokens.
        pad_token: The padding token, if there is one.
    """
    for token, number in sorted(ids.items(), key=lambda item: -item[1]):
        if token not in specials or token not in (IMAGE_TOKEN, pad_token):
            break
        if token == IMAGE_TOKEN:
            return number
    return next_id(ids)


def vocabulary_digest(ids: Mapping[str, int]) -> str:
    """Return the SHA-256 of a vocabulary, which tells the token of each row of an embedding.

    Args:
        ids: Every token with its id, including the tokens around an image.
    """
    return f"sha256:{hashlib.sha256(json.dumps(sorted(ids.items())).encode()).hexdigest()}"
