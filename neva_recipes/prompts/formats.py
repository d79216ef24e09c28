"""Recognises formats of other programs in records that cannot be used, and says how to convert them."""

import re
from collections.abc import Iterable

__all__ = ["filled_in_text", "foreign_format"]

_PAIRS = (
    ("Alpaca", "instruction", "output"),
    ("ms-swift's query and response", "query", "response"),
    ("a table of questions", "question", "answer"),
    ("prompts and completions", "prompt", "completion"),
    ("prompts and responses", "prompt", "response"),
)
"""Formats without turns: the name of each, and its fields for question and answer."""

_CAPTIONS = ("caption", "text")

_PLACES = re.compile(r"<\|image_\d+\|>|<image_\d+>|<\|image_pad\|>|<\|image\|>|<image_placeholder>|<ImageHere>|<img>")
"""How other programs write the place of an image: Phi-3, MMMU, Qwen2-VL, Llama 3.2, DeepSeek-VL, InternLM, Qwen-VL."""

_NAMED_IN_TEXT = re.compile(r"<img>[^<>\n]*\.(?:jpe?g|png|webp|gif|bmp|tiff?)</img>", re.IGNORECASE)
"""An image as Qwen-VL's files name it."""

_FILLED_FROM_OBJECTS = ("<ref-object>", "<bbox>")

_TOOL_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response")


def foreign_format(record: dict[str, object], turns: object) -> str:
    """Return which other format a record seems to have, and how to convert it; empty if it resembles none.

    Args:
        record: A record that cannot be used.
        turns: The value of its list of turns.
    """
    if isinstance(turns, list):
        return _of_turns(turns) or _of_images(record) or _of_places(record, turns)
    for name, question, answer in _PAIRS:
        if isinstance(record.get(question), str) and isinstance(record.get(answer), str):
            return f"this looks like {name}: {_as_turns(question, answer)}"
    for field in _CAPTIONS:
        if isinstance(record.get(field), str):
            return f"this looks like a caption: {_as_turns(None, field)}"
    return ""


def filled_in_text(objects: object, texts: Iterable[tuple[str, bool]]) -> str:
    """Return what another program would put in place of a part of the texts, and what to do; empty if nothing.

    Args:
        objects: The record's `objects`, empty if it has none.
        texts: The text of each turn, and whether it is a question.
    """
    for text, is_question in texts:
        if objects:
            for mark in (mark for mark in _FILLED_FROM_OBJECTS if mark in text):
                return (
                    f"has {mark} in its text, which ms-swift replaces by an entry of objects, and nothing does so "
                    "here: write the names and boxes into the text"
                )
        if is_question and (named := _NAMED_IN_TEXT.search(text)):
            return (
                f"has {named[0]:.80} in its text, as Qwen-VL's files name an image: write <image> in its place, and "
                "the file into image of the sample"
            )
    return ""


def _as_turns(question: str | None, answer: str) -> str:
    asked = '"<image>"' if question is None else f'"<image>\\n" + {question}'
    return (
        f'write {{"image": FILE, "conversations": [{{"from": "human", "value": {asked}}}, '
        f'{{"from": "gpt", "value": {answer}}}]}}, see docs/small_data.md'
    )


def _of_turns(turns: list[object]) -> str:
    entries = [turn for turn in turns if isinstance(turn, dict)]
    if any(isinstance(turn.get("content", turn.get("value")), list) for turn in entries):
        return (
            "this is the chat format of OpenAI and transformers: join the texts of a content, with <image> where the "
            "picture stands, and name its file in image of the sample"
        )
    if any(turn.get("from", turn.get("role")) in _TOOL_ROLES for turn in entries):
        return "this is ShareGPT with tools: only turns of a human and a model are read"
    return ""


def _of_images(record: dict[str, object]) -> str:
    images = record.get("images")
    if isinstance(images, list) and any(isinstance(image, dict) for image in images):
        return (
            "this is the messages format of ms-swift and data sets with pictures inside: write each picture to a file, "
            "and its name into image"
        )
    if isinstance(images, list) and len(images) > 1:
        return "this is the messages format of ms-swift: samples with several pictures are not read"
    return ""


def _of_places(record: dict[str, object], turns: list[object]) -> str:
    """Return how to write the place of the image if the turns hold only another program's mark for it."""
    entries = [turn for turn in turns if isinstance(turn, dict)]
    texts = [text for turn in entries if isinstance(text := turn.get("value", turn.get("content")), str)]
    if not (record.get("image") or record.get("images")) or any("<image>" in text for text in texts):
        return ""
    places = (place[0] for text in texts if (place := _PLACES.search(text)))
    return next((f"{place} is another program's place of an image: write <image>" for place in places), "")
