"""Prompts as token ids: whole conversations to train on, and open ones for the model to answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neva_model.data.sample import IGNORE_INDEX, Sample
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import DataError
from neva_recipes.prompts.conversation import Turn
from neva_recipes.prompts.encoding import IMAGE_TOKEN_INDEX, encode_pieces
from neva_recipes.prompts.templates import Template

__all__ = ["EncodedConversation", "Prompt", "encode_conversation", "encode_prompt"]


@dataclass(frozen=True)
class EncodedConversation:
    """A whole conversation in token ids.

    Attributes:
        tokens: Token ids, IMAGE_TOKEN_INDEX at image positions. [sequence] int64
        loss_mask: Which tokens the model learns to write. [sequence] bool
    """

    tokens: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]

    def to_sample(self, sequence_length: int, image: torch.Tensor | None = None) -> Sample:
        """Return the sample with labels, cut to `sequence_length` tokens.

        Args:
            sequence_length: Longest sequence, image positions included.
            image: The processed image that belongs to the image positions. [3, height, width]

        Raises:
            DataError: The cut goes through an image, or leaves nothing that carries loss.
        """
        length = len(self.tokens)
        tokens, loss_mask = self.tokens[:sequence_length], self.loss_mask[:sequence_length]
        if (self.tokens[sequence_length:] == IMAGE_TOKEN_INDEX).any():
            raise DataError(f"{length} tokens, and the image does not fit into data.sequence_length={sequence_length}")
        labels = np.full(len(tokens), IGNORE_INDEX, dtype=np.int64)
        labels[:-1][loss_mask[1:]] = tokens[1:][loss_mask[1:]]
        if not loss_mask[1:].any():
            over = f" left in the first {sequence_length} of {length} tokens" if length > sequence_length else ""
            raise DataError(f"no answer{over}: nothing to learn from")
        return Sample(torch.from_numpy(tokens.copy()), torch.from_numpy(labels), image, length > sequence_length)


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends where the model is to answer.

    Attributes:
        tokens: Token ids, IMAGE_TOKEN_INDEX at image positions.
        stop_ids: Tokens that end the answer.
        stop_strings: Texts that end the answer.
    """

    tokens: list[int]
    stop_ids: frozenset[int]
    stop_strings: tuple[str, ...]


def encode_conversation(
    turns: Sequence[Turn], template: Template, tokenizer: Tokenizer, *, tokens_per_image: int
) -> EncodedConversation:
    """Encode a conversation to train on.

    Args:
        turns: Question, answer, question, answer, ...
        template: What stands around them.
        tokenizer: The model's tokenizer.
        tokens_per_image: Positions an image takes, without the tokens around it.

    Raises:
        DataError: The tokenizer lacks a special token of the template, or the template cannot hold the conversation.
    """
    tokens, loss_mask = encode_pieces(template.pieces(turns), template, tokenizer, tokens_per_image)
    return EncodedConversation(np.array(tokens, dtype=np.int64), np.array(loss_mask, dtype=np.bool_))


def encode_prompt(turns: Sequence[Turn], template: Template, tokenizer: Tokenizer, *, tokens_per_image: int) -> Prompt:
    """Encode a conversation up to where the answer to its last question begins.

    The tokens are those that `encode_conversation` puts before the first token of that answer.

    Args:
        turns: The history, and the question at the end.
        template: What stands around them.
        tokenizer: The model's tokenizer.
        tokens_per_image: Positions an image takes, without the tokens around it.

    Raises:
        DataError: The tokenizer lacks a special token of the template, or the template cannot hold the conversation.
    """
    tokens, _ = encode_pieces(template.pieces(turns), template, tokenizer, tokens_per_image)
    stop_ids = {tokenizer.special_id(template.stop.token)} if template.stop else set()
    if tokenizer.eos_id is not None:
        stop_ids.add(tokenizer.eos_id)
    return Prompt(tokens, frozenset(stop_ids), (template.stop_text,) if template.stop_text else ())
