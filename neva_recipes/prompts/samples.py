"""Records of LLaVA data files: one function returns what a record trains on, or why it cannot be used.

The dry run, the index of a training run, the loader and the evaluation all use it.
"""

from collections.abc import Collection

from neva_recipes.config import DataError, PlainTable, empty_cell, near_words
from neva_recipes.prompts._fields import IMAGE, MEANINGFUL, OTHER_IMAGES, SAYS_NOTHING, SYSTEM, UNUSABLE, turns_of
from neva_recipes.prompts.conversation import IMAGE_MARK, Conversation, NothingToLearn, parse_turns
from neva_recipes.prompts.formats import filled_in_text, foreign_format
from neva_recipes.prompts.templates import Template

__all__ = [
    "KINDS",
    "SKIPS_IT",
    "SKIPS_SUCH",
    "count_words",
    "field_of_image",
    "has_turns",
    "image_name",
    "kinds_lost",
    "names_image",
    "read_sample",
]

KINDS = {True: "with an image", False: "without an image"}
"""Names of the two kinds of samples, by whether they have an image."""

SKIPS_IT = "data.on_bad_sample=skip passes it over"
SKIPS_SUCH = "data.on_bad_sample=skip passes over such samples"
"""How to skip samples that cannot be used, if there are others."""

_ONE_IMAGE = "make a sample of each image, or leave the sample out"

_TURNS = ("conversations", "messages")

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

_PLAIN_FIELDS = frozenset(("image",))

_ANSWERING_MASKS = ("assistant", "gpt")


def read_sample(record: dict[str, object], template: Template) -> Conversation:
    """Return what a record trains on.

    Args:
        record: One sample of a data file.
        template: The template of its prompt.

    Raises:
        NothingToLearn: Nothing in it would carry loss.
        DataError: The record cannot be used.
    """
    try:
        return _read(record, template)
    except NothingToLearn:
        raise
    except DataError as error:
        if hint := foreign_format(record, turns_of(record)) or _other_turns(record) or _other_name(record):
            raise DataError(f"{error} ({hint})") from None
        raise


def _other_turns(record: dict[str, object]) -> str:
    """Return advice if a list in a record without turns has a similar name; empty otherwise."""
    if turns_of(record) is not None:
        return ""
    lists = [field for field, value in record.items() if isinstance(value, list)]
    named = ((near, field) for field in _TURNS for near in near_words(field, lists, most=1))
    return next((f"it has {near}: did you mean {field}?" for near, field in named), "")


def _other_name(record: dict[str, object]) -> str:
    """Return advice if an image seems to be named in a field that is not read; empty otherwise."""
    field = None if names_image(record) else field_of_image(record)
    if field is None or field in OTHER_IMAGES:
        return ""
    return f"{field} holds the name of an image file: call that field image"


def _read(record: dict[str, object], template: Template) -> Conversation:
    fields = MEANINGFUL & record.keys()
    image, image_field = _image_of(record, fields)
    if fields != _PLAIN_FIELDS:
        _refuse_others(record, fields, image_field)
    turns, spoken = parse_turns(turns_of(record), image_field=image_field, moves_image=not template.is_verbatim)
    objects = record["objects"] if "objects" in fields else None
    texts = ((f"{turn.before_image or ''}{turn.text}", turn.role == "human") for turn in turns)
    if problem := filled_in_text(None if objects in SAYS_NOTHING else objects, texts):
        raise DataError(problem)
    system = _system_of(record, fields, spoken, template)
    conversation = Conversation(turns, system, image)
    template.check(conversation)
    return conversation


def image_name(record: dict[str, object]) -> str | None:
    """Return the name of a record's image file; `None` for a text-only sample.

    Raises:
        DataError: The field does not hold the name of one file.
    """
    return _image_of(record, MEANINGFUL & record.keys())[0]


def names_image(record: dict[str, object]) -> bool:
    """Return whether a record names an image, usable or not."""
    return any(record.get(field) not in (None, [], [None]) for field in IMAGE)


def field_of_image(record: dict[str, object]) -> str | None:
    """Return the field with the name of an image file, in a record in which none is read; `None` without one."""
    for field, value in record.items():
        name = value[0] if isinstance(value, list) and len(value) == 1 else value
        # The id of a sample is often the name of its image.
        if field != "id" and isinstance(name, str) and name.lower().endswith(_IMAGE_ENDINGS):
            return field
    return None


def kinds_lost(there: Collection[bool], usable: Collection[bool], *, in_training: bool) -> set[bool]:
    """Return the kinds of samples, with an image (True) or without (False), whose lack of usable samples ends a run.

    In training, a sample of the same kind replaces one that is skipped; a validation needs any usable sample.

    Args:
        there: Kinds that have samples.
        usable: Kinds that have usable samples.
        in_training: Whether the samples are for training; otherwise they are for validation.
    """
    return set(there) - set(usable) if in_training or not usable else set()


def has_turns(record: dict[str, object]) -> bool:
    """Return whether an object holds a list of turns, as records do but no object inside them does."""
    return isinstance(turns_of(record), list)


def count_words(record: dict[str, object]) -> int:
    """Return the words of a record's turns, LLaVA's cheap estimate of its length."""
    turns = turns_of(record)
    if not isinstance(turns, list):
        return 0
    words = 0
    for turn in turns:
        if isinstance(turn, dict):
            text = turn.get("value")
            if text is None:
                text = turn.get("content")
            if isinstance(text, str):
                words += len(text.split())
    return words


def _image_of(record: dict[str, object], fields: frozenset[str]) -> tuple[str | None, str | None]:
    """Return the name of the image, and the field that holds it."""
    found: dict[str, str] = {}
    for field in IMAGE:
        names = record[field] if field in fields else None
        if isinstance(names, list):
            if len(names) > 1:
                raise DataError(f"{field} has {len(names)} names, expected the name of one image file: {_ONE_IMAGE}")
            names = names[0] if names else None
            names = "" if isinstance(names, list) else names
        if names is None:
            continue
        if cell := empty_cell(names):
            raise DataError(f"{field} is {cell}: name the image file, or write null for a sample without an image")
        if not isinstance(names, str) or not names:
            raise DataError(f"{field} is {record[field]!r:.60}, expected the name of one image file")
        found[field] = names
    if len(set(found.values())) > 1:
        raise DataError("image and images name different files, expected the name of one image file")
    return next(((name, field) for field, name in found.items()), (None, None))


def _refuse_others(record: dict[str, object], fields: frozenset[str], image_field: str | None) -> None:
    for field, reason in UNUSABLE.items():
        if field in fields and record[field] not in SAYS_NOTHING:
            raise DataError(f"has {field}, and {reason}: take the sample out, or take the field out of it")
    if image_field is None:
        for field in OTHER_IMAGES:
            if field in fields and record[field]:
                raise DataError(f"has {field}, but an image is read from image: rename the field")
    mask = record.get("mask")
    if isinstance(mask, str) and mask.strip().lower() in _ANSWERING_MASKS:
        raise DataError(f"has mask={mask}, but answers carry loss and questions do not: there is no other way here")
    if record.get("messages") is not None and record.get("conversations") is not None:
        raise DataError("has both conversations and messages, expected one list of turns")


def _system_of(record: PlainTable, fields: frozenset[str], spoken: str | None, template: Template) -> str | None:
    """Return the system text of a record, from any field; `None` means the template's own."""
    found = {} if spoken is None else {"a turn from system": spoken}
    for field in SYSTEM:
        if field in fields and record[field] is not None:
            if cell := empty_cell(record[field]):
                raise DataError(f"{field} is {cell}: write the text, or null for none")
            if not isinstance(record[field], str):
                raise DataError(f"{field} is {record[field]!r:.40}, expected a text")
            found[field] = record[field]
    if not template.keeps_empty_system:
        found = {field: text for field, text in found.items() if text.strip()}
    if not found:
        return None
    field, text = next(iter(found.items()))
    if len(set(found.values())) > 1:
        raise DataError(f"{' and '.join(found)} hold different system texts, expected one")
    if not template.takes_system:
        raise DataError(f"has {field}, but data.conv_template={template.name} has no place for a system text")
    if IMAGE_MARK in text:
        raise DataError(f"{field} has {IMAGE_MARK} in it: only a question can hold the image")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{field} holds {text[error.start]!r}, half a surrogate pair") from None
    return text
