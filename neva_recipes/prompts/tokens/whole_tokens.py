"""Which tokens of a vocabulary a text keeps whole: one rule for training, plan and tools.

Special tokens in a text are text, since only templates make them. A token that is none is there for texts: an added
token of transformers with special=false, a user-defined piece of SentencePiece. Both libraries look for it before they
cut the rest, so here it is looked for too, by the `tokenizers` library with the token's own flags.

Some tokens are kept from texts whatever their type, because a text could otherwise end an answer, begin a turn or
pretend that an image stands there: those of the templates (NeMo's are user-defined pieces, and Phi-3 has `</s>` with
special=false), those around an image, `<image>`, which has no row of the embedding here, and those that the
configuration names as the begin, the end or the padding of a text.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from neva_recipes.config import PlainTable
from neva_recipes.prompts.templates import TEMPLATES
from neva_recipes.prompts.tokens.vocabulary import IMAGE_TOKEN

__all__ = [
    "EXTRA_TOKENS",
    "LLAVA_IMAGE_TOKENS",
    "NAMED_TOKENS",
    "NEMO_IMAGE_TOKENS",
    "Part",
    "PrefixScheme",
    "WholeTokens",
    "configured_tokens",
    "listed_tokens",
    "marked_pieces",
    "token_text",
    "uses_of",
]

PrefixScheme = Literal["never", "first", "always"]
"""Where a tokenizer adds a space: nowhere, at the start of a text, or also behind every token that it keeps whole."""

EXTRA_TOKENS = tuple(f"<extra_id_{number}>" for number in range(8))
"""The tokens that NeMo's prompts for NeVA are made of."""

NEMO_IMAGE_TOKENS = ("<extra_id_4>", "<extra_id_5>")
"""NeMo's tokens before and behind an image."""

LLAVA_IMAGE_TOKENS = ("<im_start>", "<im_end>")
"""LLaVA's tokens before and behind an image."""

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Names that a configuration has for tokens, in the order in which transformers adds those of no vocabulary."""

_OF_TEMPLATES = frozenset(
    (
        *(token for template in TEMPLATES.values() for token in template.special_tokens),
        *(*EXTRA_TOKENS, *LLAVA_IMAGE_TOKENS, IMAGE_TOKEN),
    )
)

_OLD_LIST = "additional_special_tokens"

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def token_text(entry: object) -> str | None:
    """Return the text of a token of a configuration, whose entry is either the text or an object with settings."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def uses_of(settings: PlainTable) -> set[str]:
    """Return the tokens that a configuration names by their use."""
    return {token for name in NAMED_TOKENS if (token := token_text(settings.get(name))) is not None}


def configured_tokens(own: Iterable[PlainTable], settings: PlainTable, added: Mapping[str, int]) -> list[PlainTable]:
    """Return the added tokens of a tokenizer as a tokenizer.json lists them, with what the configuration says of them.

    As in transformers, the configuration counts where both speak, and a token that it only names is special.

    Args:
        own: The `added_tokens` of the tokenizer.json, or what stands for them.
        settings: The content of the tokenizer_config.json.
        added: Id of every added token.
    """
    decoder = settings.get("added_tokens_decoder")
    declared = decoder.values() if isinstance(decoder, dict) else ()
    entries = {token["content"]: token for token in own} | {
        token["content"]: {flag: bool(token.get(flag)) for flag in _FLAGS}
        for token in declared
        if isinstance(token, dict) and isinstance(token.get("content"), str)
    }
    named = dict.fromkeys(_FLAGS, False) | {"special": True}
    return [{**entries.get(token, named), "content": token, "id": number} for token, number in added.items()]


def marked_pieces(model: Any, settings: PlainTable) -> list[PlainTable]:
    """Return the pieces of a SentencePiece model that are added tokens in transformers, as a tokenizer.json lists them.

    Args:
        model: A `ModelProto`.
        settings: The content of the tokenizer_config.json. transformers asks the model for such pieces only if it
            lists no special tokens.
    """
    if any(isinstance(settings.get(key, {}), list | None) for key in ("extra_special_tokens", _OLD_LIST)):
        return []
    kinds = model.SentencePiece
    return [
        {"content": piece.piece, "id": number, **dict.fromkeys(_FLAGS, False), "special": piece.type == kinds.CONTROL}
        for number, piece in enumerate(model.pieces)
        if piece.type in (kinds.CONTROL, kinds.USER_DEFINED)
    ]


def listed_tokens(tokens: Mapping[str, int]) -> list[PlainTable]:
    """Return the tokens of an added_tokens.json as a tokenizer.json lists them."""
    flags = dict.fromkeys(_FLAGS, False) | {"normalized": True}
    return [{"content": token, "id": number, **flags} for token, number in tokens.items()]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text: a token that is kept whole, or what stands between two of them.

    Attributes:
        text: Its text.
        start: The place of its first character.
        token: The id of the token; `None` for text between tokens.
        is_prefixed: Whether the tokenizer puts a space of its own before it.
    """

    text: str
    start: int
    token: int | None = None
    is_prefixed: bool = False


class WholeTokens:
    """The tokens that a text keeps whole.

    Attributes:
        ids: Id of every such token.
        normalized: Those of them that are looked for in the normalised text.
    """

    def __init__(
        self, entries: Iterable[PlainTable], named: Collection[str], normalizer: PlainTable | None = None
    ) -> None:
        """Choose them among the added tokens of a tokenizer.

        Args:
            entries: The added tokens, as a tokenizer.json lists them.
            named: The tokens that the configuration names by their use.
            normalizer: The normalizer of the tokenizer.json.
        """
        others = _OF_TEMPLATES | frozenset(named)
        chosen = [entry for entry in entries if not entry["special"] and entry["content"] not in others]
        self.ids: dict[str, int] = {entry["content"]: entry["id"] for entry in chosen}
        self.normalized = tuple(entry["content"] for entry in chosen if entry["normalized"])
        self._by_number = [None, *self.ids.values()]
        self._finder = _finder(chosen, normalizer if self.normalized else None) if chosen else None

    def parts(self, text: str, scheme: PrefixScheme, *, prefix: bool, doubles: bool = False) -> Iterator[Part]:
        """Cut a text at the tokens that it keeps whole.

        Args:
            text: The text.
            scheme: Where the tokenizer adds a space of its own.
            prefix: Whether this is where a text begins, so that such a space belongs there. With "first" it stands
                before a token too, as for SentencePiece.
            doubles: Whether "always" adds a space before a space too.
        """
        for place, (token, start, end) in enumerate(self._places(text)):
            is_begin = place == 0 and prefix
            if token is not None:
                if is_begin and scheme == "first":
                    yield Part("", 0, is_prefixed=True)
                yield Part(text[start:end], start, token)
                continue
            within = place > 0 and scheme == "always" and (doubles or text[start] != " ")
            yield Part(text[start:end], start, is_prefixed=within or (is_begin and scheme != "never"))

    def _places(self, text: str) -> Iterator[tuple[int | None, int, int]]:
        """Yield id, begin and end of every token in a text, and of what stands between them."""
        if self._finder is None or not text:
            yield from [(None, 0, len(text))] if text else []
            return
        found = self._finder.encode(text, add_special_tokens=False)
        # The library lets a token end before a mark that the normalizer joins with its last letter.
        ends = [*(start for start, _ in found.offsets), len(text)][1:]
        for number, (start, end), following in zip(found.ids, found.offsets, ends, strict=True):
            yield (self._by_number[number], start, end) if number else (None, start, following)


def _finder(chosen: Iterable[PlainTable], normalizer: PlainTable | None) -> Any:
    """Return a tokenizer that finds some tokens, numbered from 1, and makes all else between two of them a 0."""
    import tokenizers  # a Rust library, which a plan without a tokenizer need not import

    finder = tokenizers.Tokenizer(tokenizers.models.WordLevel({"": 0}, unk_token=""))
    if normalizer is not None:
        layout = json.loads(finder.to_str()) | {"normalizer": normalizer}
        finder = tokenizers.Tokenizer.from_str(json.dumps(layout))
    tokens = [
        tokenizers.AddedToken(
            entry["content"], **{flag: bool(entry.get(flag)) for flag in _FLAGS if flag != "special"}, special=False
        )
        for entry in chosen
    ]
    finder.add_tokens(tokens)
    return finder
