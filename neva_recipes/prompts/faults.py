"""Everything that is wrong with a record that cannot be trained on, each fault with the name of its kind.

`read_sample` stops at the first; whoever mends a file wants all of them.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from neva_recipes.config import DataError, PlainTable, empty_cell, near_words
from neva_recipes.prompts._fields import (
    LOSS_FIELDS,
    MEANINGFUL,
    MEDIA_FIELDS,
    OTHER_IMAGES,
    ROLES,
    SAYS_NOTHING,
    SPOKEN_FIELDS,
    SYSTEM,
    UNUSABLE,
    turns_of,
)
from neva_recipes.prompts.conversation import IMAGE_MARK, NothingToLearn
from neva_recipes.prompts.formats import foreign_format
from neva_recipes.prompts.samples import field_of_image, image_name, names_image, read_sample
from neva_recipes.prompts.templates import Template

__all__ = ["Fault", "faults_of", "misspelled"]

_KNOWN = frozenset((*MEANINGFUL, "conversations", "id"))
_KNOWN_OF_TURNS = frozenset(("from", "value", "role", "content", "label", *LOSS_FIELDS, *MEDIA_FIELDS, *SPOKEN_FIELDS))
_LEAST_RATIO = 0.82
"""How similar a key must be to pass for a misspelling: `imgae` is, `image_id` and `model` are not."""

_SHOWN = 40


class Fault(NamedTuple):
    """Something that is wrong with a record.

    Attributes:
        kind: The name of its kind.
        what: What is wrong.
    """

    kind: str
    what: str


def faults_of(record: PlainTable, template: Template) -> Iterator[Fault]:
    """Yield why a record cannot be trained on; nothing if it can.

    Args:
        record: One sample of a data file.
        template: The template of its prompt.
    """
    try:
        read_sample(record, template)
        return
    except NothingToLearn as error:
        yield Fault("no-loss", str(error))
        return
    except DataError as error:
        reason = str(error)
    found = [*_of_fields(record), *_of_turns(record)]
    yield from found or [Fault("template-misfit" if "conv_template" in reason else "unusable", reason)]


def misspelled(record: PlainTable) -> Iterator[Fault]:
    """Yield the keys of a record and of its turns that are not read and look like one that is."""
    if not record.keys() <= _KNOWN:
        yield from _near(frozenset(record.keys() - _KNOWN), _KNOWN, "")
    turns = turns_of(record)
    for number, turn in enumerate(turns if isinstance(turns, list) else (), start=1):
        if isinstance(turn, dict) and not turn.keys() <= _KNOWN_OF_TURNS:
            yield from _near(frozenset(turn.keys() - _KNOWN_OF_TURNS), _KNOWN_OF_TURNS, f"turn {number}: ")


@lru_cache(maxsize=1024)
def _near(keys: frozenset[str], known: frozenset[str], where: str) -> tuple[Fault, ...]:
    """Return the faults of keys that are not known."""
    pairs = ((key, near_words(key, sorted(known), 1, _LEAST_RATIO)) for key in sorted(keys) if len(key) > 3)
    return tuple(
        Fault("key-misspelled", f"{where}key {key[:_SHOWN]!r} is not read: did you mean {near[0]}?")
        for key, near in pairs
        if near
    )


def _of_fields(record: PlainTable) -> Iterator[Fault]:
    """Yield what is wrong with the fields of a record besides its turns."""
    if record.get("messages") is not None and record.get("conversations") is not None:
        yield Fault("two-lists", "has both conversations and messages, expected one list of turns")
    try:
        image_name(record)
    except DataError as error:
        names = (record.get("image"), record.get("images"))
        several = any(isinstance(each, list) and len(each) > 1 for each in names) or all(map(_is_name, names))
        yield Fault("several-images" if several else "image-field-wrong", str(error))
    for field, reason in UNUSABLE.items():
        if field in record and record[field] not in SAYS_NOTHING:
            yield Fault("field-unusable", f"has {field}, and {reason}")
    for field in SYSTEM:
        if (value := record.get(field)) is not None and (not isinstance(value, str) or IMAGE_MARK in value):
            yield Fault("system-wrong", f"{field} is {_show(value)}, expected a text without {IMAGE_MARK}")


def _is_name(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value))


def _of_turns(record: PlainTable) -> Iterator[Fault]:
    turns = turns_of(record)
    if turns is None:
        hint = foreign_format(record, turns)
        if hint:
            yield Fault("foreign-format", f"has no list of turns ({hint})")
        else:
            yield Fault("conversations-missing", "has no conversations")
        return
    if not isinstance(turns, list):
        yield Fault("conversations-not-a-list", f"conversations is {_show(turns)}, expected a list of turns")
        return
    if not turns:
        yield Fault("conversations-empty", "conversations is an empty list")
        return
    roles, texts = list[str | None](), list[str]()
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            yield Fault("turn-not-an-object", f"turn {number} is {_show(turn)}, expected from and value")
            roles.append(None)
            continue
        yield from _of_turn(number, turn)
        roles.append(_role(turn))
        texts.append(text if isinstance(text := _value(turn), str) and roles[-1] == "human" else "")
    yield from _of_order(roles)
    yield from _of_marks(record, turns, roles, sum(text.count(IMAGE_MARK) for text in texts))


def _speaker(turn: PlainTable) -> object:
    return turn.get("from") if turn.get("from") is not None else turn.get("role")


def _value(turn: PlainTable) -> object:
    return turn.get("value") if turn.get("value") is not None else turn.get("content")


def _role(turn: PlainTable) -> str | None:
    speaker = _speaker(turn)
    return ROLES.get(speaker.strip().lower()) if isinstance(speaker, str) else None


def _of_turn(number: int, turn: PlainTable) -> Iterator[Fault]:
    speaker, text = _speaker(turn), _value(turn)
    if speaker is None:
        yield Fault("role-missing", f"turn {number} says not from whom it is")
    elif _role(turn) is None:
        yield Fault("role-unknown", f"turn {number} is from {_show(speaker)}, expected human or gpt")
    if not ({"value", "content"} & turn.keys()):
        yield Fault("value-missing", f"turn {number} has no value")
    elif not isinstance(text, str):
        yield Fault("value-not-text", f"turn {number} has {empty_cell(text) or _show(text)}, expected a text")
    elif not text.isascii() and (lost := next((each for each in text if "\ud800" <= each <= "\udfff"), None)):
        yield Fault("half-character", f"turn {number} holds {lost!r}, half a surrogate pair")
    is_answer = _role(turn) == "gpt"
    if is_answer and isinstance(text, str) and IMAGE_MARK in text:
        yield Fault("image-mark-in-answer", f"turn {number} is an answer with {IMAGE_MARK} in it")
    unusable = [field for field in (*MEDIA_FIELDS, *SPOKEN_FIELDS) if turn.get(field)]
    unusable += [field for field in LOSS_FIELDS if turn.get(field) not in (None, is_answer)]
    for field in unusable:
        yield Fault("turn-field", f"turn {number} has {field}={_show(turn[field])}, which has no place here")


def _of_order(roles: list[str | None]) -> Iterator[Fault]:
    spoken = roles[1:] if roles[0] == "system" else roles
    for place, role in enumerate(spoken):
        expected = "gpt" if place % 2 else "human"
        if role is None:
            return  # told of already
        if role != expected:
            number = place + 1 + len(roles) - len(spoken)
            yield Fault("roles-not-alternating", f"turn {number} is from {role}, expected {expected}")
            return


def _of_marks(record: PlainTable, turns: list[object], roles: list[str | None], marks: int) -> Iterator[Fault]:
    """Yield where the image of a record and the places for it do not agree."""
    if marks > 1:
        yield Fault("too-many-image-marks", f"has {marks} {IMAGE_MARK}, expected one in the whole sample")
    if names_image(record):
        if not marks and not any(IMAGE_MARK in str(_value(turn)) for turn in turns if isinstance(turn, dict)):
            hint = foreign_format(record, turns)
            is_other = "another program's place" in hint
            said = f" ({hint})" if hint else ""
            kind = "other-image-mark" if is_other else "image-without-mark"
            yield Fault(kind, f"names an image, but no question has {IMAGE_MARK}{said}")
        elif marks == 1 and roles[-1] == "human" and IMAGE_MARK in str(_value(_table(turns[-1]))):
            yield Fault("image-unanswered", f"the question with {IMAGE_MARK} has no answer")
        return
    other = field_of_image(record)
    if other is not None:
        hint = "" if other in OTHER_IMAGES else "; it holds the name of an image file"
        yield Fault("image-in-other-field", f"has {other}, but an image is read from image{hint}")
    elif marks:
        yield Fault("mark-without-image", f"has {IMAGE_MARK}, but names no image")


def _table(turn: object) -> PlainTable:
    return turn if isinstance(turn, dict) else {}


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
