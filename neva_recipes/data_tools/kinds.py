"""The kinds of findings in data files, with what they mean."""

from typing import Literal, NamedTuple

__all__ = ["KINDS", "Kind"]


class Kind(NamedTuple):
    """A kind of findings.

    Attributes:
        severity: `error` if training refuses such a sample, or passes it over; else `warning`.
        meaning: What is wrong, for a whole kind.
        advice: What to do.
    """

    severity: Literal["error", "warning"]
    meaning: str
    advice: str


def _error(meaning: str, advice: str) -> Kind:
    return Kind("error", meaning, advice)


def _warning(meaning: str, advice: str) -> Kind:
    return Kind("warning", meaning, advice)


KINDS: dict[str, Kind] = {
    "conversations-missing": _error("no list of turns", "write the turns into conversations"),
    "conversations-empty": _error("the list of turns is empty", "leave the sample out"),
    "conversations-not-a-list": _error("conversations is no list", "write a list of turns"),
    "two-lists": _error("both conversations and messages", "keep one"),
    "foreign-format": _error("a format of another program", "convert the file"),
    "key-misspelled": _warning("a key that is not read, and looks like one that is", "rename the key"),
    "turn-not-an-object": _error("a turn is no object", 'write {"from": "human", "value": "text"}'),
    "turn-field": _error("a turn has a field that has no place in a prompt", "take it out"),
    "role-missing": _error("a turn says not from whom it is", "write from"),
    "role-unknown": _error("a turn is from neither a human nor a model", "write human or gpt"),
    "roles-not-alternating": _error("roles do not alternate from human on", "join turns, or leave the sample out"),
    "value-missing": _error("a turn has no text", "write value"),
    "value-not-text": _error("what a turn says is no text", "write a text"),
    "half-character": _error("half a surrogate pair in a text", "write the file anew as UTF-8"),
    "ends-with-question": _warning("the last question has no answer, and is left out", "write the answer"),
    "answer-empty": _warning("an answer without words, which carries no loss", "write the answer"),
    "answer-empty-cell": _warning("an answer that pandas makes of an empty cell", "write the answer"),
    "answer-broken-off": _warning("an answer holds the text that ends one", "write each answer on one line"),
    "no-loss": _error("nothing in the sample carries loss", "write an answer"),
    "cut-no-loss": _error("no answer is left in the length", "take a greater length, or shorten the sample"),
    "cut-image": _error("the cut goes through the image or before it", "take a greater length"),
    "system-wrong": _error("the system text cannot be used", "write a text, or null"),
    "field-unusable": _error("a field whose meaning is not trained on", "take it out, or the sample"),
    "template-misfit": _error("the template has no place for it", "take another template"),
    "unusable": _error("training refuses the sample", "mend it as is said"),
    "image-field-wrong": _error("the image field holds no name of a file", "name the file, or write null"),
    "several-images": _error("several images in a sample", "make a sample of each"),
    "image-in-other-field": _error("an image is named in a field that is not read", "call the field image"),
    "image-not-read": _warning("trained on as text, and names an image elsewhere", "call the field image"),
    "image-without-mark": _error("an image, but no question with <image>", "put <image> into the question"),
    "other-image-mark": _error("another program's mark for the image", "write <image>"),
    "mark-without-image": _error("<image>, but no image is named", "name it, or take <image> out"),
    "too-many-image-marks": _error("more than one <image>", "keep one"),
    "image-mark-in-answer": _error("<image> in an answer", "take it out"),
    "image-unanswered": _error("the question with <image> has no answer", "write the answer"),
    "image-not-a-file-name": _error("a URL or the image itself, in place of a name", "write such images to files"),
    "image-missing": _error("the image file is not there", "get it (nemo-run data layout), or name its folder"),
    "image-other-ending": _error("the image is there under another ending", "--fix names it"),
    "image-is-folder": _error("the name of the image is that of a folder", "name the file"),
    "image-empty": _error("the image file is empty", "get it again"),
    "image-unreadable": _error("the image file cannot be read, or is no image", "get it again"),
    "image-truncated": _error("the image file ends too early", "get it again"),
    "image-damaged": _error("the image cannot be decoded", "get it again"),
    "image-too-large": _error("the image has too many pixels", "make it smaller"),
    "image-wrong-ending": _warning("the ending is not that of the content", "--fix copies and names it"),
    "duplicate-id": _warning("the id is that of an earlier sample", "give it another id"),
    "duplicate-content": _warning("image and turns are those of an earlier sample", "leave one out"),
}
"""Every kind, by its name, in the order of reports."""
