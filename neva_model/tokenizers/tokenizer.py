"""The tokenizer that all other parts of the worker use."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError
from neva_recipes.prompts.tokens.plain_text import PlainTextEncoder
from neva_recipes.prompts.tokens.vocabulary import count_tokens, next_id, vocabulary_digest
from neva_recipes.prompts.tokens.whole_tokens import LLAVA_IMAGE_TOKENS, NAMED_TOKENS, NEMO_IMAGE_TOKENS, PrefixScheme

__all__ = ["Tokenizer"]


class Tokenizer:
    """A Hugging Face tokenizer behind an interface that cannot mistake text for special tokens.

    Attributes:
        hf: The `transformers` tokenizer, for saving and for other libraries.
        name: Where it was loaded from, for messages.
        bos_id: Token that begins a sequence, or `None`.
        eos_id: Token that ends a sequence, or `None`.
        pad_id: Token that pads rows; it never carries loss.
        im_start_id: Token before an image, or `None` without tokens around images.
        im_end_id: Token after an image, or `None` without tokens around images.
        adds_image_tokens: Whether these two tokens were added to the vocabulary.
        new_tokens: Ids of the added tokens.
        prefix_scheme: Where the tokenizer adds a leading space of its own.
    """

    def __init__(self, hf: Any, name: str, *, use_im_start_end: bool = False) -> None:
        """Wrap a `transformers` tokenizer.

        Args:
            hf: A tokenizer with a `tokenizers` backend.
            name: Where it comes from, for messages.
            use_im_start_end: Use tokens around an image: `<extra_id_4>` and `<extra_id_5>` if the vocabulary has them
                (NeMo), otherwise `<im_start>` and `<im_end>` (LLaVA), which are added to the vocabulary.
        """
        self.hf = hf
        self.name = name
        start, end = NEMO_IMAGE_TOKENS
        self.adds_image_tokens = use_im_start_end and not {start, end} <= hf.get_added_vocab().keys()
        known = next_id(hf.get_vocab())
        if self.adds_image_tokens:
            start, end = LLAVA_IMAGE_TOKENS
            hf.add_tokens([start, end], special_tokens=True)
        self.new_tokens = range(known, next_id(hf.get_vocab()))
        self._specials: dict[str, int] = hf.get_added_vocab()
        self.im_start_id = self.special_id(start) if use_im_start_end else None
        self.im_end_id = self.special_id(end) if use_im_start_end else None
        self._plain = self._text_encoder()
        self.prefix_scheme: PrefixScheme = self._plain.prefix_scheme
        self.bos_id: int | None = hf.bos_token_id
        self.eos_id: int | None = hf.eos_token_id
        self._size = count_tokens(hf.get_vocab(), self._specials, hf.pad_token)
        candidates = (hf.pad_token_id, hf.unk_token_id, hf.eos_token_id, 0)
        self.pad_id: int = next(token for token in candidates if token is not None and token < self._size)
        if self._plain.is_empty:
            raise DataError(
                f"tokenizer {name} has no vocabulary beyond its {len(self._specials)} special tokens: "
                "expected a directory with tokenizer.json, or with tokenizer.model and tokenizer_config.json"
            )

    def _text_encoder(self) -> PlainTextEncoder:
        uses = {token for name in NAMED_TOKENS if (token := self.hf.special_tokens_map.get(name)) is not None}
        try:
            return PlainTextEncoder(json.loads(self.hf.backend_tokenizer.to_str()), uses)
        except DataError as error:
            raise DataError(f"tokenizer {self.name}: {error}") from None

    @property
    def vocab_size(self) -> int:
        """One more than the largest id that a prompt can hold; the rows an embedding needs."""
        return self._size

    def special_id(self, token: str) -> int:
        """Return the id of a special token such as `</s>`.

        Raises:
            DataError: The tokenizer has no such special token.
        """
        if token not in self._specials:
            raise DataError(
                f"tokenizer {self.name} has no special token {token}: choose another conversation template or tokenizer"
            )
        return self._specials[token]

    def encode_text(self, text: str, *, prefix: bool = False) -> list[int]:
        """Return the ids of `text` as plain text; special tokens in it are spelt out, others are kept whole.

        Args:
            text: Any text.
            prefix: Add SentencePiece's leading space, as at the start of a text; no effect for tokenizers without one.

        Raises:
            DataError: The text holds half a surrogate pair, which is no character.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text holds {text[error.start]!r}, half a surrogate pair") from None
        return self._plain.encode(text, prefix=prefix)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of token ids; ids outside the vocabulary (image positions, padding rows) are left out."""
        known = [token for token in ids if 0 <= token < self._size]
        text: str = self.hf.decode(known, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the token of every id, as the vocabulary spells it."""
        entries: list[str] = self.hf.convert_ids_to_tokens(list(ids))
        return entries

    def fingerprint(self) -> str:
        """Return a digest of everything that determines how text becomes ids."""
        digest = hashlib.sha256(self.hf.backend_tokenizer.to_str().encode())
        digest.update("".join(sorted(self._plain.whole.ids)).encode())
        return digest.hexdigest()

    def vocabulary_digest(self) -> str:
        """Return the SHA-256 of the vocabulary, which tells the token of each row of an embedding."""
        return vocabulary_digest(self.hf.get_vocab())

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a Hugging Face directory that loads back to the same tokenizer.

        transformers 5 forgets `legacy` when it saves a Llama tokenizer. For other tokenizers it forgets which tokens
        begin and end a text and on which side rows are padded. These settings are added.
        """
        self.hf.save_pretrained(directory)
        path = Path(directory, "tokenizer_config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
        if hasattr(self.hf, "legacy"):
            config["legacy"] = self.prefix_scheme == "always"
        config |= {
            "add_bos_token": self.hf.add_bos_token,
            "add_eos_token": self.hf.add_eos_token,
            "padding_side": self.hf.padding_side,
        }
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
