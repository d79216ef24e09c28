"""The turns of a conversation, read from the list in a record of a data file."""

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from neva_recipes.config import DataError, empty_cell
from neva_recipes.prompts._fields import LOSS_FIELDS, MEDIA_FIELDS, ROLES, SPOKEN_FIELDS

__all__ = ["IMAGE_MARK", "Conversation", "NothingToLearn", "Turn", "parse_turns"]

IMAGE_MARK = "<image>"
"""Place of the image in LLaVA's files. It is removed from the text here; later it is ordinary text."""


class NothingToLearn(DataError):
    """A sample in which nothing carries loss; LLaVA trains on it, but here it is skipped."""


class Turn(NamedTuple):
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        text: The text; it contains neither special tokens nor an image.
        image: Whether the image belongs to this turn, before the text.
        before_image: The text before the image if the image stays in its place, directly followed by `text`; `None` if
            the image is at the front, on a line of its own.
        label: The attributes that the record gives for the answer to this question, for templates with a place for
            them; `None` means the template's.
    """

    role: Literal["human", "gpt"]
    text: str
    image: bool = False
    before_image: str | None = None
    label: str | None = None


class Conversation(NamedTuple):
    """A conversation as a template takes it.

    Attributes:
        turns: Question, answer, question, answer, ...
        system: The record's own system text; `None` means the template's.
        image: Name of the image file; `None` for a text-only sample.
    """

    turns: Sequence[Turn]
    system: str | None = None
    image: str | None = None


def parse_turns(entries: object, *, image_field: str | None, moves_image: bool) -> tuple[list[Turn], str | None]:
    """Return the turns of a sample, and the text of a system turn at the start, if there is one.

    A last question without an answer teaches nothing and is left out.

    Args:
        entries: A list of `{"from": ..., "value": ...}`, or of `{"role": ..., "content": ...}`.
        image_field: The field in which the sample names its image; `None` for a text-only sample.
        moves_image: Whether the image moves to the front of its turn, and that turn is stripped, as in LLaVA; otherwise
            it stays in its place, and nothing is stripped, as in NeMo.

    Raises:
        DataError: It is not such a list, turns do not alternate beginning with a human, or the number of `<image>` is
            wrong.
        NothingToLearn: Everything is right, but there is no answer with text.
    """
    if not isinstance(entries, list) or not entries:
        raise DataError("conversations is empty or missing: expected a list of turns")
    turns: list[Turn] = []
    system = None
    marks = 0
    answered = False
    for number, entry in enumerate(entries, start=1):
        role, text = _read_turn(number, entry)
        label = _label(number, role, entry) if len(entry) > 2 else None
        expected: Literal["human", "gpt"] = "gpt" if len(turns) % 2 else "human"
        if role != expected:
            if role == "system" and number == 1:
                system = text
                continue
            raise DataError(f"turn {number} is from {role}, expected {expected}: roles must alternate from human on")
        if IMAGE_MARK in text:
            marks += 1
            turns.append(_image_turn(number, expected, text, moves_image))
        else:
            turns.append(Turn(expected, text))
        if label is not None:
            turns[-2] = turns[-2]._replace(label=label)
        answered = answered or (role == "gpt" and bool(text) and not text.isspace())
    _check_images(marks, image_field)
    last = turns.pop() if turns and turns[-1].role == "human" else None
    if not answered:
        raise NothingToLearn("no answer: nothing to learn from")
    if last is not None and last.image:
        raise DataError("the question with <image> has no answer")
    return turns, system


def _read_turn(number: int, entry: object) -> tuple[str, str]:
    """Return role and text of an entry."""
    if not isinstance(entry, dict):
        raise DataError(f'turn {number} is not of the form {{"from": "human", "value": "text"}}')
    speaker, text = entry.get("from"), entry.get("value")
    if speaker is None:
        speaker = entry.get("role")
    if text is None:
        text = entry.get("content")
    if not isinstance(speaker, str) or not isinstance(text, str):
        if isinstance(text, list):
            raise DataError(f"turn {number} has a list as its content, expected a text with <image> where the image is")
        problem = _no_text(entry, text)
        raise DataError(f'turn {number} is not of the form {{"from": "human", "value": "text"}}{problem}')
    role = ROLES.get(speaker) or ROLES.get(speaker.strip().lower())
    if role is None:
        raise DataError(f"turn {number} is from {speaker[:40]!r}, expected human or gpt")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"turn {number} holds {text[error.start]!r}, half a surrogate pair") from None
    return role, text


def _no_text(entry: dict[str, object], text: object) -> str:
    """Return what is wrong with what stands in the place of a turn's text, and what to do; empty if nothing does."""
    if "value" not in entry and "content" not in entry:
        return ""
    if cell := empty_cell(text):
        return f": its text is {cell}: write the text, or leave the sample out"
    if isinstance(text, (int, float)):
        shown = json.dumps(text)
        return f': its text is {shown}, expected it in quotes, "{shown}"'
    return ""


def _label(number: int, role: str, entry: dict[str, object]) -> str | None:
    """Return the label of a turn, and refuse any other field that would change the training."""
    for field in LOSS_FIELDS:
        if field in entry and entry[field] not in (None, role == "gpt"):
            shown = f"{field}={entry[field]!r:.40}"
            raise DataError(f"turn {number} has {shown}: every answer carries loss, and nothing else does")
    for field in MEDIA_FIELDS:
        if entry.get(field):
            raise DataError(f"turn {number} has {field} of its own: expected one image, named in image of the sample")
    for field in SPOKEN_FIELDS:
        if entry.get(field):
            raise DataError(f"turn {number} has {field}, which has no place in a prompt here: expected words alone")
    if None not in (entry.get("value"), entry.get("content")) and entry["value"] != entry["content"]:
        raise DataError(f"turn {number} has both value and content, and they differ: expected one text")
    label = entry.get("label")
    if label is not None and not isinstance(label, str):
        raise DataError(f"turn {number} has label={label!r:.40}, expected a text")
    if label is not None and role != "gpt":
        raise DataError(f"turn {number} has label, but is not an answer")
    return label


def _image_turn(number: int, role: Literal["human", "gpt"], text: str, moves_image: bool) -> Turn:
    if role == "gpt":
        raise DataError(f"turn {number} is an answer with <image> in it: only a question can hold the image")
    before, _, after = text.partition(IMAGE_MARK)
    if IMAGE_MARK in after:
        raise DataError(f"turn {number} has {text.count(IMAGE_MARK)} <image>, expected one in the whole sample")
    return Turn(role, (before + after).strip(), True) if moves_image else Turn(role, after, True, before)


def _check_images(marks: int, image_field: str | None) -> None:
    if marks > 1:
        raise DataError(f"{marks} turns have <image>, expected one in the whole sample")
    if marks and image_field is None:
        raise DataError("a question has <image>, but the sample names no image file")
    if image_field is not None and not marks:
        raise DataError(f"the sample names an image file in {image_field}, but no question has <image>")
