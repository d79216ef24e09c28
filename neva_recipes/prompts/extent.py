"""What a cut leaves of a prompt: the worker cuts by this, and a plan predicts the effect of the cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from neva_recipes.config import DataError
from neva_recipes.prompts.conversation import NothingToLearn
from neva_recipes.prompts.encoding import IMAGE_TOKEN_INDEX

__all__ = ["PromptExtent", "extent_of"]


@dataclass(frozen=True)
class PromptExtent:
    """The positions in the tokens of a prompt that a cut must keep.

    Attributes:
        length: Tokens of the whole prompt, including those of the image.
        learns_at: Position of the first token that carries loss, not counting the very first token, which nothing
            predicts; `None` if there is none.
        image_end: Position after the last token of the image; 0 without an image.
    """

    length: int
    learns_at: int | None
    image_end: int = 0

    @property
    def least(self) -> int | None:
        """The shortest sequence that keeps the image and a token to learn; `None` if nothing carries loss."""
        return None if self.learns_at is None else max(self.learns_at + 1, self.image_end)

    def is_used(self, sequence_length: int) -> bool:
        """Return whether the first `sequence_length` tokens can be used for training."""
        return self.least is not None and self.least <= sequence_length

    def is_torn(self, sequence_length: int) -> bool:
        """Return whether a cut leaves something to learn but cuts the image, which makes a bad sample."""
        return self.learns_at is not None and self.learns_at < sequence_length < self.image_end

    def require_rest(self, sequence_length: int) -> None:
        """Check what a cut to `sequence_length` tokens leaves.

        Raises:
            NothingToLearn: Nothing carries loss, or nothing that does is left after the cut.
            DataError: The cut goes through the image or before it.
        """
        if self.is_torn(sequence_length):
            raise DataError(
                f"{self.length} tokens, and the image does not fit into data.sequence_length={sequence_length}"
            )
        if not self.is_used(sequence_length):
            is_cut = self.length > sequence_length
            over = f" left in the first {sequence_length} of {self.length} tokens" if is_cut else ""
            raise NothingToLearn(f"no answer{over}: nothing to learn from")


def extent_of(tokens: Sequence[int], loss_mask: Sequence[bool]) -> PromptExtent:
    """Return the extent of a prompt.

    Args:
        tokens: Token ids, IMAGE_TOKEN_INDEX at image positions.
        loss_mask: Which of them carry loss.
    """
    learns_at = loss_mask.index(True, 1) if True in loss_mask[1:] else None
    image_end = len(tokens) - tokens[::-1].index(IMAGE_TOKEN_INDEX) if IMAGE_TOKEN_INDEX in tokens else 0
    return PromptExtent(len(tokens), learns_at, image_end)
