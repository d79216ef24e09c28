"""A copy of a Hugging Face tokenizer backend that knows no special tokens and adds no leading space."""

import json
from typing import Any, Literal

__all__ = ["PlainTextEncoder", "PrefixScheme"]

PrefixScheme = Literal["never", "first", "always"]
"""Where a SentencePiece tokenizer puts a space of its own: nowhere, at the start of a text, or after specials too."""


class PlainTextEncoder:
    """Encodes any string as ordinary text.

    A Hugging Face backend cuts its added tokens out of the text before it encodes the rest, so `</s>` in a message
    would end the sequence. Here the added tokens are gone. Added tokens that are nothing but white space stay: some
    vocabularies keep their runs of spaces there, and those are ordinary text.

    SentencePiece's leading space (dummy prefix) is taken out too and left to the caller, because it depends on what
    stands before the text: transformers 5 leaves it away before a text that begins with a space, SentencePiece and
    the transformers that LLaVA was trained with do not.

    Attributes:
        prefix_scheme: Where the copied tokenizer puts that leading space.
        is_empty: Whether there is no vocabulary beyond the special tokens.
    """

    def __init__(self, layout: dict[str, Any]) -> None:
        """Build the copy.

        Args:
            layout: The content of a tokenizer.json; used up.
        """
        import tokenizers  # a library of its own, in Rust; a plan that reads no tokenizer does without

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
            # The vocabulary itself may hold a special token as a piece (user-defined symbols, lucky merges).
            if token in self._forbidden and end - start > 1:
                return self.encode(text[: start + 1]) + self.encode(text[start + 1 :])
        return encoding.ids


def _unknown_id(model: dict[str, Any]) -> int | None:
    """Return the id that characters outside the vocabulary become; it may well stand for text."""
    if model.get("type") == "Unigram":
        return model["unk_id"]
    return model["vocab"].get(model.get("unk_token"))


def _remove_prefix(layout: dict[str, Any]) -> PrefixScheme:
    """Take every source of a leading space out of a serialized backend and return the scheme it followed."""
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


def _members(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return part[key] if part["type"] == "Sequence" else [part]
