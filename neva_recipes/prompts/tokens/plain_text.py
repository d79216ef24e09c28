"""Encodes texts as a tokenizer does, without its special tokens and with no leading space but where it is asked for."""

import bisect
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

from neva_recipes.config import DataError, PlainTable
from neva_recipes.prompts.tokens.whole_tokens import Part, PrefixScheme, WholeTokens

__all__ = ["PlainTextEncoder", "SentencePieceEncoder", "TextEncoder"]


class TextEncoder(ABC):
    """Encodes any string as ordinary text: tokens that are no special tokens are kept whole, special ones spelt out.

    SentencePiece's leading space (dummy prefix) is left to the caller, because it depends on what precedes the text.
    transformers 5 omits it before a text that begins with a space or with a token that is kept whole; SentencePiece and
    the transformers that LLaVA was trained with do not.

    Attributes:
        whole: The tokens that a text keeps whole.
        prefix_scheme: Where the tokenizer adds the leading space.
        doubles_prefix: Whether it adds one behind a whole token even before a space.
    """

    def __init__(self, whole: WholeTokens, prefix_scheme: PrefixScheme) -> None:
        self.whole = whole
        self.prefix_scheme = prefix_scheme
        self.doubles_prefix = False

    def encode(self, text: str, *, prefix: bool = False) -> list[int]:
        """Return the token ids of a text; none of them is a special token, whatever the text says.

        Args:
            text: The text.
            prefix: Whether the tokenizer's own space belongs before it.
        """
        ids: list[int] = []
        for part in self.whole.parts(text, self.prefix_scheme, prefix=prefix, doubles=self.doubles_prefix):
            ids += self._ids(part) if part.token is None else [part.token]
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what `encode` returns for each text with `prefix`, in less time than one by one."""
        scheme, doubles = self.prefix_scheme, self.doubles_prefix
        cut = [list(self.whole.parts(text, scheme, prefix=True, doubles=doubles)) for text in texts]
        between = iter(self._ids_of_many([part for parts in cut for part in parts if part.token is None]))
        found = list[list[int]]()
        for parts in cut:
            ids = [next(between) if part.token is None else [part.token] for part in parts]
            found.append(ids[0] if len(ids) == 1 else list(itertools.chain(*ids)))
        return found

    def located(self, text: str) -> tuple[list[int], list[int]]:
        """Return the token ids of a text that begins there, and the place of the character at which each begins."""
        ids: list[int] = []
        places: list[int] = []
        for part in self.whole.parts(text, self.prefix_scheme, prefix=True, doubles=self.doubles_prefix):
            some, starts = self._located(part) if part.token is None else ([part.token], [0])
            ids += some
            places += [part.start + start for start in starts]
        return ids, places

    @abstractmethod
    def _ids(self, part: Part) -> list[int]:
        """Return the ids of a text between whole tokens."""

    def _ids_of_many(self, parts: Sequence[Part]) -> list[list[int]]:
        """Return the ids of several texts between whole tokens."""
        return [self._ids(part) for part in parts]

    @abstractmethod
    def _located(self, part: Part) -> tuple[list[int], list[int]]:
        """Return the ids of a text between whole tokens, and the places in it at which they begin."""


class PlainTextEncoder(TextEncoder):
    """Encodes text with a copy of a Hugging Face backend.

    A backend splits its added tokens from the text before it encodes the rest, so `</s>` in a message would end the
    sequence. The copy has no added tokens.

    Attributes:
        is_empty: Whether there is no vocabulary beyond the added tokens.
    """

    def __init__(self, layout: PlainTable, named: Collection[str]) -> None:
        """Build the copy.

        Args:
            layout: The content of a tokenizer.json, with every added token that the configuration has; it is modified.
            named: The tokens that the configuration names by their use.

        Raises:
            DataError: A token can only be found by the tokenizers library.
        """
        import tokenizers  # a Rust library, which a plan without a tokenizer need not import

        added = layout["added_tokens"]
        layout.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        scheme, doubles = _remove_prefix(layout)
        super().__init__(WholeTokens(added, named, layout.get("normalizer")), scheme)
        self.doubles_prefix = doubles
        if doubles and self.whole.normalized:
            raise DataError(
                f"token {self.whole.normalized[0]} is looked for in normalised text, where a Prepend normalizer lets "
                "the tokenizers library find it behind spaces only: expected it with normalized=false"
            )
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(layout))
        tokens = {token["id"] for token in added if not token["content"].isspace()}
        ids = set(self._backend.get_vocab().values())
        self._forbidden = (tokens & ids) - {*self.whole.ids.values(), _unknown_id(layout["model"])}
        self.is_empty = ids <= tokens

    def _ids(self, part: Part) -> list[int]:
        return self._spelt(" " + part.text if part.is_prefixed else part.text)[0]

    def _ids_of_many(self, parts: Sequence[Part]) -> list[list[int]]:
        texts = [" " + part.text if part.is_prefixed else part.text for part in parts]
        found = [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        if not self._forbidden:
            return found
        return [
            ids if self._forbidden.isdisjoint(ids) else self._spelt(text)[0]
            for ids, text in zip(found, texts, strict=True)
        ]

    def _located(self, part: Part) -> tuple[list[int], list[int]]:
        if not part.is_prefixed:
            return self._spelt(part.text)
        ids, starts = self._spelt(" " + part.text)
        return ids, [max(start - 1, 0) for start in starts]

    def _spelt(self, text: str) -> tuple[list[int], list[int]]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        if not self._forbidden.isdisjoint(ids):
            for token, (start, end) in zip(ids, offsets, strict=True):
                # The vocabulary itself may contain a special token as a piece (user-defined symbols, lucky merges).
                if token in self._forbidden and end - start > 1:
                    head, tail = self._spelt(text[: start + 1]), self._spelt(text[start + 1 :])
                    return head[0] + tail[0], head[1] + [start + 1 + place for place in tail[1]]
        return ids, [start for start, _ in offsets]


class SentencePieceEncoder(TextEncoder):
    """Encodes text with a SentencePiece model.

    The model finds its user-defined pieces itself, but transformers, with which a training encodes, also heeds spaces
    in them and flags of the configuration. So the copies here leave them to `WholeTokens`.
    """

    def __init__(self, model: Any, whole: WholeTokens, prefix_scheme: PrefixScheme) -> None:
        """Load copies of the model.

        Args:
            model: A `ModelProto`.
            whole: The tokens that a text keeps whole.
            prefix_scheme: Where the tokenizer adds the leading space; "never" if the model adds none.
        """
        super().__init__(whole, prefix_scheme if model.normalizer_spec.add_dummy_prefix else "never")
        self._begin = _without_user_defined(model)
        self._within = _without_user_defined(model, add_dummy_prefix=False)
        self._space: list[int] = _without_user_defined(
            model, add_dummy_prefix=False, remove_extra_whitespaces=False
        ).encode(" ")

    def _ids(self, part: Part) -> list[int]:
        if part.is_prefixed and not part.text:
            return self._space
        ids: list[int] = (self._begin if part.is_prefixed else self._within).encode(part.text)
        return ids

    def _located(self, part: Part) -> tuple[list[int], list[int]]:
        if part.is_prefixed and not part.text:
            return self._space, [0] * len(self._space)
        processor = self._begin if part.is_prefixed else self._within
        # Releases name it differently.
        found = (getattr(processor, "encode_as_proto", None) or processor.EncodeAsImmutableProto)(part.text)
        return [piece.id for piece in found.pieces], _places_of(found, part.text)


def _places_of(found: Any, text: str) -> list[int]:
    """Return the character at which each piece begins; releases that return a protobuf message count bytes."""
    from google.protobuf.message import Message

    begins = [piece.begin for piece in found.pieces]
    if text.isascii() or not isinstance(found, Message):
        return begins
    ends = list(itertools.accumulate(len(character.encode()) for character in text))
    return [bisect.bisect_right(ends, begin) for begin in begins]


def _without_user_defined(model: Any, **normalizer: bool) -> Any:
    """Return a `SentencePieceProcessor` of a model whose user-defined pieces are in no text."""
    import sentencepiece

    copy = type(model)()
    copy.CopyFrom(model)
    kinds = model.SentencePiece
    for piece in copy.pieces:
        if piece.type == kinds.USER_DEFINED:
            piece.type = kinds.CONTROL
    for name, value in normalizer.items():
        setattr(copy.normalizer_spec, name, value)
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(copy.SerializeToString())
    return processor


def _unknown_id(model: PlainTable) -> int | None:
    """Return the id for characters outside the vocabulary, which may stand for text."""
    is_unigram = model.get("type") == "Unigram"
    unknown: int | None = model["unk_id"] if is_unigram else model["vocab"].get(model.get("unk_token"))
    return unknown


def _remove_prefix(layout: PlainTable) -> tuple[PrefixScheme, bool]:
    """Remove every source of a leading space from a serialized backend.

    Returns:
        The scheme that it followed, and whether it adds a space before a space too.
    """
    scheme: PrefixScheme = "never"
    for part in _members(layout.get("pre_tokenizer"), "pretokenizers"):
        if part["type"] == "Metaspace" and (found := part.get("prepend_scheme", "always")) != "never":
            scheme, part["prepend_scheme"] = found, "never"
        elif part["type"] == "ByteLevel" and part["add_prefix_space"]:
            scheme, part["add_prefix_space"] = "always", False
    members = _members(layout.get("normalizer"), "normalizers")
    if not any(part["type"] == "Prepend" for part in members):
        return scheme, False
    kept = [part for part in members if part["type"] != "Prepend"]
    layout["normalizer"] = {"type": "Sequence", "normalizers": kept}
    return "always", True


def _members(part: PlainTable | None, key: str) -> list[PlainTable]:
    if part is None:
        return []
    return part[key] if part["type"] == "Sequence" else [part]
