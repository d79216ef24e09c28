"""Conversations as LLaVA's files write them, turned into checked turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from neva_recipes.config import DataError

__all__ = ["IMAGE_MARK", "Turn", "parse_conversation"]

IMAGE_MARK = "<image>"
"""Where LLaVA's files put the image of a sample; taken out of the text here, so that later on it is ordinary text."""

_ROLES: dict[str, Literal["human", "gpt"]] = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


@dataclass(frozen=True)
class Turn:
    """What one side says.

    Attributes:
        role: Who says it.
        text: The words; nothing in them is a special token or an image.
        image: Whether the image stands before the words.
    """

    role: Literal["human", "gpt"]
    text: str
    image: bool = False


def parse_conversation(conversations: Any, *, has_image: bool) -> list[Turn]:
    """Return the turns of a sample.

    A turn that holds the image is stripped and the image moves to its front, as LLaVA does; other turns stay as they
    are. A last question without an answer teaches nothing and is left out.

    Args:
        conversations: The `conversations` field: a list of `{"from": ..., "value": ...}`.
        has_image: Whether the sample names an image.

    Raises:
        DataError: The field is not such a list, turns do not alternate from a human one on, or the number of
            `<image>` does not fit.
    """
    if not isinstance(conversations, list) or not conversations:
        raise DataError("conversations is empty or missing: expected a list of turns")
    turns = [_parse_turn(number, entry) for number, entry in enumerate(conversations, start=1)]
    for number, turn in enumerate(turns, start=1):
        expected = "human" if number % 2 else "gpt"
        if turn.role != expected:
            raise DataError(
                f"turn {number} is from {turn.role}, expected {expected}: roles must alternate from human on"
            )
    _check_images(turns, has_image)
    if turns[-1].role == "human":
        if turns[-1].image:
            raise DataError("the question with <image> has no answer")
        turns.pop()
    if not turns:
        raise DataError("the conversation has no answer")
    return turns


def _parse_turn(number: int, entry: Any) -> Turn:
    speaker = entry.get("from") if isinstance(entry, dict) else None
    text = entry.get("value") if isinstance(entry, dict) else None
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise DataError(f'turn {number} is not of the form {{"from": "human", "value": "text"}}')
    if speaker not in _ROLES:
        raise DataError(f"turn {number} is from {speaker[:40]!r}, expected human or gpt")
    role, marks = _ROLES[speaker], text.count(IMAGE_MARK)
    if role == "gpt" or not marks:
        return Turn(role, text)
    if marks > 1:
        raise DataError(f"turn {number} has {marks} <image>, expected one in the whole sample")
    return Turn(role, text.replace(IMAGE_MARK, "").strip(), image=True)


def _check_images(turns: Sequence[Turn], has_image: bool) -> None:
    for number, turn in enumerate(turns, start=1):
        if turn.role == "gpt" and IMAGE_MARK in turn.text:
            raise DataError(f"turn {number} is an answer with <image> in it: only a question can hold the image")
    marks = sum(turn.image for turn in turns)
    if marks > 1:
        raise DataError(f"{marks} turns have <image>, expected one in the whole sample")
    if marks and not has_image:
        raise DataError("a question has <image>, but the sample names no image file")
    if has_image and not marks:
        raise DataError("the sample names an image file, but no question has <image>")
