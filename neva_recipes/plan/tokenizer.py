"""Tokenizers that lie here, read without transformers: their tokens for the checks, their encoding for the lengths."""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError
from neva_recipes.prompts.plain_text import PlainTextEncoder, PrefixScheme

__all__ = ["LocalTokenizer", "read_tokenizer"]

_OTHER_FILES = ("tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
"""Files of tokenizers that only transformers can read."""

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_LLAMA_TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
"""What transformers' LlamaTokenizer names where tokenizer_config.json does not."""

Encode = Callable[[str], list[int]]


class LocalTokenizer:
    """A tokenizer as the worker will see it, as far as prompts and the size of the vocabulary go.

    Attributes:
        name: Where it lies, for messages.
        specials: Id of every special token.
        vocab_size: One more than the largest id.
        adds_image_tokens: Whether two tokens around images were added behind the vocabulary.
        bos_id: Token that begins a sequence, or None.
        eos_id: Token that ends a sequence, or None.
        im_start_id: Token before an image, or None where images stand alone.
        im_end_id: Token after an image, or None where images stand alone.
    """

    def __init__(self, source: "_Source", name: str, *, use_im_start_end: bool = False) -> None:
        """Put together what the files of a tokenizer say, and the tokens that `use_im_start_end` adds."""
        self.name = name
        self._source = source
        self.specials = dict(source.specials)
        self.vocab_size = source.vocab_size
        start, end = "<extra_id_4>", "<extra_id_5>"
        self.adds_image_tokens = use_im_start_end and not {start, end} <= self.specials.keys()
        if self.adds_image_tokens:
            start, end = "<im_start>", "<im_end>"
            for token in (start, end):
                if token not in self.specials:
                    self.specials[token] = self.vocab_size
                    self.vocab_size += 1
        self.im_start_id = self.specials[start] if use_im_start_end else None
        self.im_end_id = self.specials[end] if use_im_start_end else None
        self.bos_id = self.specials.get(source.bos_token or "")
        self.eos_id = self.specials.get(source.eos_token or "")

    def special_id(self, token: str) -> int:
        """Return the id of a special token such as `</s>`.

        Raises:
            DataError: The tokenizer has no such special token.
        """
        if token not in self.specials:
            raise DataError(f"tokenizer {self.name} has no special token {token}")
        return self.specials[token]

    @property
    def prefix_scheme(self) -> PrefixScheme:
        """Where the tokenizer puts a leading space of its own."""
        return self._encoder[1]

    def encode_text(self, text: str, *, prefix: bool = False) -> list[int]:
        """Return the ids of plain text, after a leading space of the tokenizer's own with `prefix`.

        Raises:
            DataError: The text holds half a surrogate pair, which is no character.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text holds {text[error.start]!r}, half a surrogate pair") from None
        encode, scheme = self._encoder
        return encode(" " + text if prefix and text and scheme != "never" else text)

    @cached_property
    def _encoder(self) -> tuple[Encode, PrefixScheme]:
        return self._source.encoder()


class _Source:
    """What the files of a tokenizer hold.

    Attributes:
        specials: Id of every special token.
        vocab_size: One more than the largest id.
        bos_token: Token that begins a sequence, or None.
        eos_token: Token that ends a sequence, or None.
        encoder: Returns what encodes text without a leading space, and where such a space belongs.
    """

    def __init__(
        self,
        ids: dict[str, int],
        specials: dict[str, int],
        settings: dict[str, Any],
        encoder: Callable[[], tuple[Encode, PrefixScheme]],
    ) -> None:
        self.specials = specials
        self.vocab_size = max(ids.values(), default=-1) + 1
        self.encoder = encoder
        for token in _named_tokens(settings):
            if token not in self.specials:
                self.specials[token] = ids.get(token, self.vocab_size)
                self.vocab_size = max(self.vocab_size, self.specials[token] + 1)
        self.bos_token = _content(settings.get("bos_token"))
        self.eos_token = _content(settings.get("eos_token"))


def read_tokenizer(path: Path, *, use_im_start_end: bool = False) -> LocalTokenizer | None:
    """Read a Hugging Face directory with a tokenizer.json or a tokenizer.model, or a bare SentencePiece model.

    Args:
        path: The directory or file.
        use_im_start_end: Add the tokens around an image, where the vocabulary has none.

    Returns:
        The tokenizer; none where its files are of a kind that only transformers can read.

    Raises:
        DataError: A file cannot be read, or there is none.
    """
    settings = {} if path.is_file() else _settings(path)
    if path.is_file():
        source = _read_sentencepiece(path, {})
    elif (path / "tokenizer.json").is_file():
        source = _read_json(path / "tokenizer.json", settings)
    elif (path / "tokenizer.model").is_file():
        source = _read_sentencepiece(path / "tokenizer.model", settings)
    elif any((path / name).is_file() for name in _OTHER_FILES):
        return None
    else:
        raise DataError(f"{path} holds no tokenizer: expected tokenizer.json or tokenizer.model")
    return LocalTokenizer(source, str(path), use_im_start_end=use_im_start_end)


def _settings(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json over special_tokens_map.json, with the tokens its class names by itself."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found = _read(folder / name, json.loads)
            if not isinstance(found, dict):
                raise DataError(f"{folder / name}: cannot be read: expected a JSON object")
            settings |= found
    if _is_llama(settings):
        settings = _LLAMA_TOKENS | settings
    return settings


def _is_llama(settings: dict[str, Any]) -> bool:
    return str(settings.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer"


def _named_tokens(settings: dict[str, Any]) -> Iterator[str]:
    entries = [settings.get(key) for key in _NAMED_TOKENS]
    # The older name counts where the other is not there.
    others = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    entries += list(others.values()) if isinstance(others, dict) else others if isinstance(others, list) else []
    added = settings.get("added_tokens_decoder")
    entries += added.values() if isinstance(added, dict) else []
    for entry in entries:
        if token := _content(entry):
            yield token


def _content(entry: Any) -> str | None:
    """Return the text of a token, which is written alone or with its settings."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())[:160]}") from None


def _read_json(path: Path, settings: dict[str, Any]) -> _Source:
    layout = _read(path, json.loads)
    try:
        vocabulary = layout["model"]["vocab"]
        # A unigram model lists its pieces with their scores, the others map pieces to ids.
        ids = (
            {entry[0]: number for number, entry in enumerate(vocabulary)}
            if isinstance(vocabulary, list)
            else vocabulary
        )
        added = {token["content"]: int(token["id"]) for token in layout.get("added_tokens") or []}
        ids = {**ids, **added}
        source = _Source(ids, dict(added), settings, lambda: _json_encoder(path, layout, settings))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a tokenizer: {error!r}") from None
    if len(ids) <= len(added):
        raise DataError(f"{path} has no vocabulary beyond its {len(added)} special tokens")
    return source


def _json_encoder(path: Path, layout: dict[str, Any], settings: dict[str, Any]) -> tuple[Encode, PrefixScheme]:
    try:
        encoder = PlainTextEncoder(layout)
    except Exception as error:  # noqa: BLE001 the library raises nothing more special
        raise DataError(f"{path}: cannot be read as a tokenizer: {' '.join(str(error).split())[:160]}") from None
    scheme = encoder.prefix_scheme
    return encoder.encode, _llama_scheme(settings) if _is_llama(settings) and scheme != "never" else scheme


def _llama_scheme(settings: dict[str, Any]) -> PrefixScheme:
    return "always" if settings.get("legacy") else "first"


def _read_sentencepiece(path: Path, settings: dict[str, Any]) -> _Source:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise DataError(f"{path}: cannot be read as a SentencePiece model: {error}") from None
    if not model.pieces:
        raise DataError(f"{path}: cannot be read as a SentencePiece model: it has no pieces")
    if model.trainer_spec.model_type != model.trainer_spec.BPE and (not settings or _is_llama(settings)):
        raise DataError(
            f"{path} is not a BPE model of SentencePiece, which the worker cannot use without tokenizer.json"
        )
    ids = {piece.piece: number for number, piece in enumerate(model.pieces)}
    specials = {
        piece.piece: ids[piece.piece] for piece in model.pieces if piece.type == model.SentencePiece.USER_DEFINED
    }
    return _Source(ids, specials, _LLAMA_TOKENS | settings, lambda: _sentencepiece_encoder(model, settings))


def _sentencepiece_encoder(model: Any, settings: dict[str, Any]) -> tuple[Encode, PrefixScheme]:
    import sentencepiece

    scheme = _llama_scheme(settings) if model.normalizer_spec.add_dummy_prefix else "never"
    model.normalizer_spec.add_dummy_prefix = False
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor.encode, scheme
