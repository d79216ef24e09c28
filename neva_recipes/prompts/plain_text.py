"""A copy of a Hugging Face tokenizer backend without special tokens and without a leading space."""

import json
from typing import Literal

from neva_recipes.config import PlainTable

__all__ = ["PlainTextEncoder", "PrefixScheme"]

PrefixScheme = Literal["never", "first", "always"]
"""Where a SentencePiece tokenizer adds a space: nowhere, at the start of a text, or also after special tokens."""


class PlainTextEncoder:
    """Encodes any string as ordinary text.

    A Hugging Face backend splits its added tokens from the text before it encodes the rest, so `</s>` in a message
    would end the sequence. This copy has no added tokens, except those that are only white space: some vocabularies
    keep their runs of spaces there, and those are ordinary text.

    SentencePiece's leading space (dummy prefix) is also removed and left to the caller, because it depends on what
    precedes the text. transformers 5 omits it before a text that begins with a space; SentencePiece and the
    transformers that LLaVA was trained with do not.

    Attributes:
        prefix_scheme: Where the copied tokenizer adds the leading space.
        is_empty: Whether there is no vocabulary beyond the special tokens.
    """

    def __init__(self, layout: PlainTable) -> None:
        """Build the copy.

        Args:
            layout: The content of a tokenizer.json; it is modified.
        """
        import tokenizers  # a Rust library, which a plan without a tokenizer need not import

        added = layout["added_tokens"]
        layout["added_tokens"] = [token for token in added if token["content"].isspace() and not token["special"]]
        layout.update(post_processor=None, truncation=None, padding=None)
        self.prefix_scheme = _remove_prefix(layout)
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(layout))
        specials = {token["id"] for token in added if not token["content"].isspace()}
        self._forbidden = specials - {_unknown_id(layout["model"])}
        self.is_empty = set(self._backend.get_vocab().values()) <= specials

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`; none of them is a special token, whatever the text says."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            # The vocabulary itself may contain a special token as a piece (user-defined symbols, lucky merges).
            if token in self._forbidden and end - start > 1:
                return self.encode(text[: start + 1]) + self.encode(text[start + 1 :])
        return encoding.ids


def _unknown_id(model: PlainTable) -> int | None:
    """Return the id for characters outside the vocabulary, which may stand for text."""
    is_unigram = model.get("type") == "Unigram"
    unknown: int | None = model["unk_id"] if is_unigram else model["vocab"].get(model.get("unk_token"))
    return unknown


def _remove_prefix(layout: PlainTable) -> PrefixScheme:
    """Remove every source of a leading space from a serialized backend, and return the scheme it followed."""
    scheme: PrefixScheme = "never"
    for part in _members(layout.get("pre_tokenizer"), "pretokenizers"):
        if part["type"] == "Metaspace" and (found := part.get("prepend_scheme", "always")) != "never":
            scheme, part["prepend_scheme"] = found, "never"
        elif part["type"] == "ByteLevel" and part["add_prefix_space"]:
            scheme, part["add_prefix_space"] = "always", False
    normalizer = layout.get("normalizer")
    if any(part["type"] == "Prepend" for part in _members(normalizer, "normalizers")):
        scheme = "always"
        kept = [part for part in _members(normalizer, "normalizers") if part["type"] != "Prepend"]
        layout["normalizer"] = {"type": "Sequence", "normalizers": kept}
    return scheme


def _members(part: PlainTable | None, key: str) -> list[PlainTable]:
    if part is None:
        return []
    return part[key] if part["type"] == "Sequence" else [part]
