"""The fields of records and turns, and the names of roles."""

from typing import Any, Literal

__all__ = [
    "IMAGE",
    "LOSS_FIELDS",
    "MEANINGFUL",
    "MEDIA_FIELDS",
    "OTHER_IMAGES",
    "ROLES",
    "SAYS_NOTHING",
    "SPOKEN_FIELDS",
    "SYSTEM",
    "UNUSABLE",
    "turns_of",
]

ROLES: dict[str, Literal["human", "gpt", "system"]] = {
    **dict.fromkeys(("human", "user"), "human"),
    **dict.fromkeys(("gpt", "assistant", "bot", "chatbot", "chatgpt", "model"), "gpt"),
    "system": "system",
}
"""Roles, by the names that data sets use, in any case."""

LOSS_FIELDS = ("loss", "train", "weight")
"""Fields of a turn with which other trainers turn its loss on (true, 1) or off (false, 0)."""

MEDIA_FIELDS = ("image", "images", "video", "videos", "audio", "audios")

SPOKEN_FIELDS = ("tool_calls", "function_call", "reasoning_content")
"""Fields of a turn that hold content besides its text."""

SYSTEM = ("system", "system_prompt", "system_message")

IMAGE = ("image", "images")

OTHER_IMAGES = ("image_path", "image_file", "image_url", "img", "img_path")
"""Fields in which other trainers name an image; they are ignored if a field of `IMAGE` is there."""

UNUSABLE = {
    **dict.fromkeys(("video", "videos", "video_path"), "there is no video here"),
    **dict.fromkeys(("audio", "audios", "audio_path", "speech"), "there is no sound here"),
    **dict.fromkeys(("tools", "functions"), "tools have no place in a prompt here"),
    **dict.fromkeys(
        ("chosen", "rejected", "rejected_response", "rejected_messages", "kto_tag"), "answers are not compared here"
    ),
}
"""Fields whose meaning cannot be trained on."""

SAYS_NOTHING: tuple[Any, ...] = (None, "", "[]", [], {}, [None])
"""Values of such fields in samples that do not use them."""

MEANINGFUL = frozenset((*SYSTEM, *IMAGE, *OTHER_IMAGES, *UNUSABLE, "messages", "mask", "objects"))
"""Every field that is read besides `conversations`; all other fields are ignored."""


def turns_of(record: dict[str, object]) -> Any:
    """Return the list of turns of a record, or whatever stands in its place; `None` without one."""
    turns = record.get("conversations")
    return record.get("messages") if turns is None else turns
