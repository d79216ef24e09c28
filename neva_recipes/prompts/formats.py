"""Recognises formats of other programs in records that cannot be used, and says how to convert them."""

__all__ = ["foreign_format"]

_PAIRS = (
    ("Alpaca", "instruction", "output"),
    ("ms-swift's query and response", "query", "response"),
    ("a table of questions", "question", "answer"),
    ("prompts and completions", "prompt", "completion"),
    ("prompts and responses", "prompt", "response"),
)
"""Formats without turns: the name of each, and its fields for question and answer."""

_CAPTIONS = ("caption", "text")

_TOOL_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response")


def foreign_format(record: dict[str, object], turns: object) -> str:
    """Return which other format a record seems to have, and how to convert it; empty if it resembles none.

    Args:
        record: A record that cannot be used.
        turns: The value of its list of turns.
    """
    if isinstance(turns, list):
        return _of_turns(turns) or _of_images(record)
    for name, question, answer in _PAIRS:
        if isinstance(record.get(question), str) and isinstance(record.get(answer), str):
            return f"this looks like {name}: {_as_turns(question, answer)}"
    for field in _CAPTIONS:
        if isinstance(record.get(field), str):
            return f"this looks like a caption: {_as_turns(None, field)}"
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
