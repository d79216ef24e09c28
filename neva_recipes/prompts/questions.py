"""The questions of a conversation, and the conditions for asking a model, for both an evaluation and a plan."""

from collections.abc import Iterator, Sequence

from neva_recipes.config import DataError
from neva_recipes.prompts.conversation import Turn

__all__ = ["histories", "require_room", "require_sight"]


def histories(turns: Sequence[Turn]) -> Iterator[Sequence[Turn]]:
    """Yield for each answer of a conversation the turns before it, which end with its question.

    Args:
        turns: Question, answer, question, answer, ...
    """
    for answer in range(1, len(turns), 2):
        yield turns[:answer]


def require_room(length: int, positions: int) -> None:
    """Check that a prompt leaves room for at least one token of an answer.

    Args:
        length: Tokens of the prompt, including those of the image.
        positions: Positions of the model, for prompt and answer together.

    Raises:
        DataError: There is no room.
    """
    if length >= positions:
        raise DataError(
            f"the prompt takes {length} tokens, image tokens included; the model's limit is {positions}, "
            "the answer included: shorten it or start anew"
        )


def require_sight(image: str | None, model: str, *, sees: bool) -> None:
    """Check that a question about an image goes to a model with a vision tower.

    Args:
        image: Name of the image; `None` if there is none.
        model: Name of the model, for the message.
        sees: Whether it has a vision tower.

    Raises:
        DataError: The model has no vision tower.
    """
    if image is not None and not sees:
        raise DataError(f"is about the image {image}, but {model} is a text-only model")
