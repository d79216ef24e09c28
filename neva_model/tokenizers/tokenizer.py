"""The tokenizer every other part of the worker uses."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError
from neva_recipes.prompts.plain_text import PlainTextEncoder, PrefixScheme

__all__ = ["Tokenizer"]


class Tokenizer:
    """A Hugging Face tokenizer behind an interface that cannot mistake text for special tokens.

    Attributes:
        hf: The `transformers` tokenizer, for saving and for other libraries.
        name: Where it was loaded from, for messages.
        bos_id: Token that begins a sequence, or None.
        eos_id: Token that ends a sequence, or None.
        pad_id: Token that fills up rows; one that never carries loss.
        im_start_id: Token before an image, or None where images stand alone.
        im_end_id: Token after an image, or None where images stand alone.
        adds_image_tokens: Whether those two were added behind the vocabulary.
        prefix_scheme: Where the tokenizer puts a leading space of its own.
    """

    def __init__(self, hf: Any, name: str, *, use_im_start_end: bool = False) -> None:
        """Wrap a `transformers` tokenizer.

        Args:
            hf: A tokenizer with a `tokenizers` backend.
            name: Where it comes from, for messages.
            use_im_start_end: Name the tokens around an image: `<extra_id_4>` and `<extra_id_5>` where the
                vocabulary has them (NeMo), else `<im_start>` and `<im_end>` (LLaVA), added behind the vocabulary.
        """
        self.hf = hf
        self.name = name
        start, end = "<extra_id_4>", "<extra_id_5>"
        self.adds_image_tokens = use_im_start_end and not {start, end} <= hf.get_added_vocab().keys()
        if self.adds_image_tokens:
            start, end = "<im_start>", "<im_end>"
            hf.add_tokens([start, end], special_tokens=True)
        self._specials: dict[str, int] = hf.get_added_vocab()
        self.im_start_id = self.special_id(start) if use_im_start_end else None
        self.im_end_id = self.special_id(end) if use_im_start_end else None
        self._plain = PlainTextEncoder(json.loads(hf.backend_tokenizer.to_str()))
        self.prefix_scheme: PrefixScheme = self._plain.prefix_scheme
        self.bos_id: int | None = hf.bos_token_id
        self.eos_id: int | None = hf.eos_token_id
        candidates = (hf.pad_token_id, hf.unk_token_id, hf.eos_token_id, 0)
        self.pad_id: int = next(token for token in candidates if token is not None)
        self._size = max(hf.get_vocab().values(), default=-1) + 1
        if self._plain.is_empty:
            raise DataError(
                f"tokenizer {name} has no vocabulary beyond its {len(self._specials)} special tokens: "
                "expected a directory with tokenizer.json, or with tokenizer.model and tokenizer_config.json"
            )

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id; the rows an embedding needs."""
        return self._size

    def special_id(self, token: str) -> int:
        """Return the id of a special token such as `</s>`.

        Raises:
            DataError: The tokenizer has no such special token.
        """
        if token not in self._specials:
            raise DataError(
                f"tokenizer {self.name} has no special token {token}: choose another data.conv_template or tokenizer"
            )
        return self._specials[token]

    def encode_text(self, text: str, *, prefix: bool = False) -> list[int]:
        """Return the ids of `text` as plain text; what looks like a special token in it is spelt out.

        Args:
            text: Any text.
            prefix: Put SentencePiece's leading space before it, as at the start of a text; without effect for
                tokenizers that have none.

        Raises:
            DataError: The text holds half a surrogate pair, which is no character.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text holds {text[error.start]!r}, half a surrogate pair") from None
        return self._plain.encode(" " + text if prefix and text and self.prefix_scheme != "never" else text)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of token ids; ids outside the vocabulary (image positions, padding rows) are left out."""
        known = [token for token in ids if 0 <= token < self._size]
        text: str = self.hf.decode(known, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary entry of every id, as the vocabulary spells it."""
        entries: list[str] = self.hf.convert_ids_to_tokens(list(ids))
        return entries

    def fingerprint(self) -> str:
        """Return a digest of everything that decides how text becomes ids."""
        return hashlib.sha256(self.hf.backend_tokenizer.to_str().encode()).hexdigest()

    def vocabulary_digest(self) -> str:
        """Return the SHA-256 of the vocabulary: which token each row of an embedding belongs to."""
        vocabulary = sorted(self.hf.get_vocab().items())
        return f"sha256:{hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()}"

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a Hugging Face directory that loads back to the same tokenizer.

        transformers 5 forgets `legacy` when it saves a Llama tokenizer, so it is added.
        """
        self.hf.save_pretrained(directory)
        path = Path(directory, "tokenizer_config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
        if hasattr(self.hf, "legacy"):
            config["legacy"] = self.prefix_scheme == "always"
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
