"""Prompts as token ids: whole conversations to train on, and open ones that the model answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neva_model.data.sample import Sample
from neva_model.tokenizers import Tokenizer
from neva_recipes.prompts.conversation import Turn
from neva_recipes.prompts.encoding import IGNORE_INDEX, encode_pieces
from neva_recipes.prompts.extent import extent_of
from neva_recipes.prompts.templates import Template

__all__ = ["EncodedConversation", "Prompt", "encode_conversation", "encode_prompt"]


@dataclass(frozen=True)
class EncodedConversation:
    """A whole conversation in token ids.

    Attributes:
        tokens: Token ids, IMAGE_TOKEN_INDEX at image positions. [sequence] int64
        loss_mask: Which tokens carry loss. [sequence] bool
    """

    tokens: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]

    def to_sample(self, sequence_length: int, image: torch.Tensor | None = None) -> Sample:
        """Return the sample with labels, cut to `sequence_length` tokens.

        Args:
            sequence_length: Longest sequence, image positions included.
            image: The processed image for the image positions. [3, height, width]

        Raises:
            NothingToLearn: Nothing carries loss, or nothing that does is left after the cut.
            DataError: The cut goes through an image.
        """
        extent_of(self.tokens.tolist(), self.loss_mask.tolist()).require_rest(sequence_length)
        length = len(self.tokens)
        tokens, loss_mask = self.tokens[:sequence_length], self.loss_mask[:sequence_length]
        labels = np.full(len(tokens), IGNORE_INDEX, dtype=np.int64)
        labels[:-1][loss_mask[1:]] = tokens[1:][loss_mask[1:]]
        return Sample(torch.from_numpy(tokens.copy()), torch.from_numpy(labels), image, length > sequence_length)


@dataclass(frozen=True)
class Prompt:
    """A conversation up to the point where the model answers.

    Attributes:
        tokens: Token ids, IMAGE_TOKEN_INDEX at image positions.
        stop_ids: Tokens that end the answer.
        stop_strings: Texts that end the answer.
    """

    tokens: list[int]
    stop_ids: frozenset[int]
    stop_strings: tuple[str, ...]


def encode_conversation(
    turns: Sequence[Turn],
    template: Template,
    tokenizer: Tokenizer,
    *,
    tokens_per_image: int,
    system: str | None = None,
) -> EncodedConversation:
    """Encode a conversation to train on.

    Args:
        turns: Question, answer, question, answer, ...
        template: The template of the prompt.
        tokenizer: The model's tokenizer.
        tokens_per_image: Positions an image takes, without the tokens around it.
        system: The system text; `None` means the template's.

    Raises:
        DataError: The tokenizer lacks a special token of the template, or the template cannot hold the conversation.
    """
    tokens, loss_mask = encode_pieces(template.pieces(turns, system), template, tokenizer, tokens_per_image)
    return EncodedConversation(np.array(tokens, dtype=np.int64), np.array(loss_mask, dtype=np.bool_))


def encode_prompt(
    turns: Sequence[Turn],
    template: Template,
    tokenizer: Tokenizer,
    *,
    tokens_per_image: int,
    system: str | None = None,
) -> Prompt:
    """Encode a conversation up to where the answer to its last question begins.

    The tokens are those that `encode_conversation` puts before the first token of that answer.

    Args:
        turns: The history, and the question at the end.
        template: The template of the prompt.
        tokenizer: The model's tokenizer.
        tokens_per_image: Positions an image takes, without the tokens around it.
        system: The system text; `None` means the template's.

    Raises:
        DataError: The tokenizer lacks a special token of the template, or the template cannot hold the conversation.
    """
    tokens, _ = encode_pieces(template.pieces(turns, system), template, tokenizer, tokens_per_image)
    stop_ids = {tokenizer.special_id(template.stop.token)} if template.stop else set()
    if tokenizer.eos_id is not None:
        stop_ids.add(tokenizer.eos_id)
    return Prompt(tokens, frozenset(stop_ids), (template.stop_text,) if template.stop_text else ())
