"""The identity of a sample in any file: short keys of the words that are learned from it.

Keys are compared if files are not equal byte for byte: an array and JSON lines, a part of a file, another order, or the
first turns of a longer conversation. Whoever compares them compares the images too.
"""

import unicodedata
from collections.abc import Callable
from hashlib import blake2b

from neva_recipes.prompts.conversation import Conversation, Turn

__all__ = ["conversation_keys", "key_of", "text_words"]

_MASK = 2**64 - 1

_FACTOR = 0x9E3779B97F4A7C15
"""Odd, so that no exchange of a longer conversation is lost; 2^64 over the golden section, whose bits look random."""


def conversation_keys(conversation: Conversation, key: Callable[[str], int]) -> tuple[int, ...]:
    """Return the keys of a conversation: first that of the whole, then those of the parts that are samples elsewhere.

    The parts are its first exchanges (a question and its answer each), as many as there are, and each exchange by
    itself. White space around texts and the composition of characters make no difference, nor does the system text.

    Args:
        conversation: The conversation.
        key: Returns the key of a text: `key_of`, or `hash` for keys that are compared in this process only.
    """
    words = [_words(turn) for turn in conversation.turns]
    pairs = zip(words[::2], words[1::2], strict=True)
    exchanges = [key(text_words(f"{question}\0{answer}")) for question, answer in pairs]
    begin, begins = 0, []
    for exchange in exchanges:
        begin = (begin * _FACTOR + exchange) & _MASK
        begins.append(begin)
    return (*reversed(begins), *(exchange & _MASK for exchange in exchanges[1:]))


def _words(turn: Turn) -> str:
    return (turn.text if turn.before_image is None else turn.before_image + turn.text).strip()


def text_words(text: str) -> str:
    """Return the text that identifies a text: the text without surrounding white space, with characters composed."""
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def key_of(words: str) -> int:
    """Return the key for an identifying text: 64 bits, the same in every process.

    Among a million samples and a thousand others, two different ones share a key with odds of 1 to 10^10.
    """
    return int.from_bytes(blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
