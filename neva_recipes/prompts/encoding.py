"""Turns the pieces of a prompt into token ids, with any tokenizer."""

from collections.abc import Sequence
from typing import Protocol

from neva_recipes.prompts.templates import Piece, Slot, Special, Template
from neva_recipes.prompts.tokens.whole_tokens import PrefixScheme

__all__ = ["IGNORE_INDEX", "IMAGE_TOKEN_INDEX", "PromptTokenizer", "check_template", "encode_pieces"]

IGNORE_INDEX = -100
"""Label of a position that carries no loss."""

IMAGE_TOKEN_INDEX = -200
"""Takes the place of a token at every position of an image feature."""


class PromptTokenizer(Protocol):
    """What prompts need of a tokenizer.

    Attributes:
        bos_id: Token that begins a sequence, or `None`.
        im_start_id: Token before an image, or `None` without tokens around images.
        im_end_id: Token after an image, or `None` without tokens around images.
    """

    bos_id: int | None
    im_start_id: int | None
    im_end_id: int | None

    @property
    def prefix_scheme(self) -> PrefixScheme:
        """Where the tokenizer adds a leading space of its own."""

    def special_id(self, token: str) -> int:
        """Return the id of a special token; raise `DataError` if there is none."""

    def encode_text(self, text: str, *, prefix: bool = False) -> list[int]:
        """Return the ids of plain text; with `prefix`, after the tokenizer's own leading space."""


def check_template(template: Template, tokenizer: PromptTokenizer) -> None:
    """Check that the tokenizer has every special token of the template.

    Raises:
        DataError: The tokenizer lacks one.
    """
    for token in template.special_tokens:
        tokenizer.special_id(token)


def encode_pieces(
    pieces: Sequence[Piece], template: Template, tokenizer: PromptTokenizer, tokens_per_image: int
) -> tuple[list[int], list[bool]]:
    """Return the token ids of a prompt, and which of them carry loss.

    Args:
        pieces: The pieces that `template` made of a conversation.
        template: The template.
        tokenizer: The model's tokenizer.
        tokens_per_image: Positions an image takes, without the tokens around it.

    Raises:
        DataError: The tokenizer lacks a special token of the template.
    """
    tokens: list[int] = []
    loss_mask: list[bool] = []
    begins_text = True
    spaces_each = tokenizer.prefix_scheme == "always"
    if template.is_one_text and tokenizer.prefix_scheme != "never":
        tokens = tokenizer.encode_text(" ")
        loss_mask = [False] * len(tokens)
    for piece in pieces:
        if isinstance(piece.part, str):
            ids = tokenizer.encode_text(piece.part, prefix=begins_text)
            begins_text = begins_text and not piece.part
        elif piece.part is Slot.START:
            ids = []
            begins_text = True
        elif piece.part is Slot.IMAGE:
            ids = [IMAGE_TOKEN_INDEX] * tokens_per_image
            begins_text = template.image_parts_text or (template.image_is_token and spaces_each)
            if template.marks_image and tokenizer.im_start_id is not None and tokenizer.im_end_id is not None:
                ids = [tokenizer.im_start_id, *ids, tokenizer.im_end_id]
                begins_text = spaces_each
        else:
            ids = _special_ids(piece, tokenizer)
            begins_text = spaces_each
        tokens += ids
        loss_mask += [piece.carries_loss] * len(ids)
    return tokens, loss_mask


def _special_ids(piece: Piece, tokenizer: PromptTokenizer) -> list[int]:
    if piece.part is Slot.BEGIN:
        return [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    assert isinstance(piece.part, Special)
    return [tokenizer.special_id(piece.part.token)]
