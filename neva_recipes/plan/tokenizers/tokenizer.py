"""Local tokenizers, read without transformers: their tokens for the checks, their encoding for the lengths."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from neva_recipes.config import (
    DataError,
    PlainTable,
    Recipe,
    RecipeError,
    expand_path,
    path_is,
    pointer_in_place,
    tokenizer_name,
)
from neva_recipes.families.values import shown
from neva_recipes.plan.huggingface import cached_models, cached_snapshot, could_be_on_hub, is_cached
from neva_recipes.plan.tokenizers.sentencepiece_models import require_encodable, require_model_file
from neva_recipes.prompts.tokens.plain_text import PlainTextEncoder, SentencePieceEncoder, TextEncoder
from neva_recipes.prompts.tokens.vocabulary import count_tokens, next_id, vocabulary_digest
from neva_recipes.prompts.tokens.whole_tokens import (
    LLAVA_IMAGE_TOKENS,
    NAMED_TOKENS,
    NEMO_IMAGE_TOKENS,
    PrefixScheme,
    WholeTokens,
    configured_tokens,
    listed_tokens,
    marked_pieces,
    token_text,
    uses_of,
)

__all__ = [
    "LocalTokenizer",
    "kept_tokenizer",
    "known_tokenizer",
    "known_vocabulary",
    "read_tokenizer",
    "recipe_tokenizer",
]

_OTHER_FILES = ("tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
"""Files of tokenizers that only transformers can read."""

_LLAMA_TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
"""The tokens of transformers' LlamaTokenizer if tokenizer_config.json does not name them."""

Encoder = Callable[[dict[str, int]], TextEncoder]
"""Makes what encodes text out of the ids of all added tokens."""


class LocalTokenizer:
    """A tokenizer as the worker will use it, as far as prompts and the size of the vocabulary are concerned.

    Attributes:
        name: Its path, for messages.
        tokens: Id of every token.
        specials: Id of every special token.
        vocab_size: One more than the largest id that a prompt can hold.
        adds_image_tokens: Whether two tokens around images were added to the vocabulary.
        bos_id: Token that begins a sequence, or `None`.
        eos_id: Token that ends a sequence, or `None`.
        im_start_id: Token before an image, or `None` without tokens around images.
        im_end_id: Token after an image, or `None` without tokens around images.
    """

    def __init__(self, source: "_Source", name: str, *, use_im_start_end: bool = False) -> None:
        """Combine the content of a tokenizer's files with the tokens that `use_im_start_end` adds."""
        self.name = name
        self._source = source
        self.specials = dict(source.specials)
        ids = dict(source.ids)
        start, end = NEMO_IMAGE_TOKENS
        self.adds_image_tokens = use_im_start_end and not {start, end} <= self.specials.keys()
        if self.adds_image_tokens:
            start, end = LLAVA_IMAGE_TOKENS
            for token in (start, end):
                if token not in self.specials:
                    self.specials[token] = ids[token] = next_id(ids)
        self.vocab_size = count_tokens(ids, self.specials, source.pad_token)
        self.im_start_id = self.specials[start] if use_im_start_end else None
        self.im_end_id = self.specials[end] if use_im_start_end else None
        self.tokens = ids
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

    @cached_property
    def vocabulary_digest(self) -> str:
        """The SHA-256 of the vocabulary, as checkpoints store it."""
        return vocabulary_digest(self.tokens)

    @property
    def prefix_scheme(self) -> PrefixScheme:
        """Where the tokenizer adds a leading space of its own."""
        return self._encoder.prefix_scheme

    def encode_text(self, text: str, *, prefix: bool = False) -> list[int]:
        """Return the ids of plain text; with `prefix`, after the tokenizer's own leading space.

        Special tokens in it are spelt out, others are kept whole.

        Raises:
            DataError: The text holds half a surrogate pair, which is no character.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text holds {text[error.start]!r}, half a surrogate pair") from None
        return self._encoder.encode(text, prefix=prefix)

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what `encode_text` returns for each text with `prefix`, in less time than one by one.

        Args:
            texts: The texts, which hold no half of a surrogate pair.
        """
        return self._encoder.encode_many(texts)

    @cached_property
    def _encoder(self) -> TextEncoder:
        return self._source.encoder(self.specials)


class _Source:
    """The content of a tokenizer's files.

    Attributes:
        ids: Id of every token.
        specials: Id of every special token.
        bos_token: Token that begins a sequence, or `None`.
        eos_token: Token that ends a sequence, or `None`.
        pad_token: Token that pads rows, or `None`.
        encoder: Makes what encodes text.
    """

    def __init__(
        self,
        ids: dict[str, int],
        specials: dict[str, int],
        settings: dict[str, object],
        encoder: Encoder,
    ) -> None:
        self.ids = ids
        self.specials = specials
        self.encoder = encoder
        for token in _named_tokens(settings):
            if token not in self.specials:
                self.specials[token] = ids.setdefault(token, next_id(ids))
        self.bos_token = token_text(settings.get("bos_token"))
        self.eos_token = token_text(settings.get("eos_token"))
        self.pad_token = token_text(settings.get("pad_token"))


def read_tokenizer(path: Path, *, use_im_start_end: bool = False) -> LocalTokenizer | None:
    """Read a Hugging Face directory with a tokenizer.json or a tokenizer.model, or a bare SentencePiece model.

    Args:
        path: The directory or file.
        use_im_start_end: Add the tokens around an image if the vocabulary lacks them.

    Returns:
        The tokenizer; `None` if only transformers can read its files.

    Raises:
        DataError: A file cannot be read, or there is no tokenizer.
    """
    settings = {} if path.is_file() else _settings(path)
    if path.is_file():
        require_model_file(path)
        source = _read_sentencepiece(path, {}, is_bare=True)
    elif (path / "tokenizer.json").is_file():
        source = _read_json(path / "tokenizer.json", settings)
    elif (path / "tokenizer.model").is_file():
        # Without a configuration the worker takes the class of Llama.
        is_bare = not (path / "tokenizer_config.json").is_file()
        source = _read_sentencepiece(path / "tokenizer.model", settings, is_bare=is_bare, added=_added(path, settings))
    elif any((path / name).is_file() for name in _OTHER_FILES):
        return None
    else:
        raise DataError(f"{path} holds no tokenizer: expected tokenizer.json or tokenizer.model")
    return LocalTokenizer(source, str(path), use_im_start_end=use_im_start_end)


def recipe_tokenizer(recipe: Recipe, models: Path | None = None) -> LocalTokenizer | None:
    """Return the tokenizer of a recipe; it is read again only if its files have changed.

    Args:
        recipe: The recipe.
        models: Folder of the models that have been fetched from the hub; `None` means that of this process.

    Returns:
        The tokenizer; `None` if it is not here or only transformers can read it.

    Raises:
        DataError: A file of the tokenizer cannot be read, or there is none.
        RecipeError: The recipe names no tokenizer.
    """
    name = tokenizer_name(recipe)
    path: Path | None = expand_path(name)
    if path is not None and not path_is(path):
        models = cached_models(os.environ) if models is None else models
        is_fetched = could_be_on_hub(name) and is_cached(name, models, weights=False)
        path = cached_snapshot(name, models) if is_fetched else None
    return None if path is None else kept_tokenizer(path, use_im_start_end=recipe.model.use_im_start_end)


def kept_tokenizer(path: Path, *, use_im_start_end: bool) -> LocalTokenizer | None:
    """Return what `read_tokenizer` returns; the files are read again only if they have changed."""
    return _read_once(path, use_im_start_end, _state(path))


def known_tokenizer(recipe: Recipe, models: Path | None = None) -> LocalTokenizer | None:
    """Return what `recipe_tokenizer` does, and `None` if it cannot be read; check_files reports what is wrong."""
    try:
        return recipe_tokenizer(recipe, models)
    except (DataError, RecipeError):
        return None


def known_vocabulary(recipe: Recipe) -> str | None:
    """Return the digest of the recipe's vocabulary if its tokenizer is here and can be read."""
    tokenizer = known_tokenizer(recipe)
    return tokenizer.vocabulary_digest if tokenizer is not None else None


@lru_cache(maxsize=16)
def _read_once(path: Path, use_im_start_end: bool, _: object) -> LocalTokenizer | None:
    return read_tokenizer(path, use_im_start_end=use_im_start_end)


def _state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return the names, sizes and modification times of a tokenizer's files."""
    try:
        files = [path] if path.is_file() else [entry for entry in sorted(path.iterdir()) if entry.is_file()]
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


def _settings(folder: Path) -> PlainTable:
    """Return tokenizer_config.json over special_tokens_map.json, with the default tokens of the tokenizer's class."""
    settings: PlainTable = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found = _read(folder / name, json.loads)
            if not isinstance(found, dict):
                raise DataError(f"{folder / name}: cannot be read: expected a JSON object")
            settings |= found
            _check_types(folder / name, found)
    if _is_llama(settings):
        settings = _LLAMA_TOKENS | settings
    return settings


def _check_types(path: Path, settings: dict[str, object]) -> None:
    """Check the names of tokens and of the tokenizer's class, on which transformers fails without a clear message."""
    for key in (*NAMED_TOKENS, "tokenizer_class"):
        found = settings.get(key)
        named = token_text(found) if key != "tokenizer_class" else found if isinstance(found, str) else None
        # Some libraries ignore an empty token, others loop over it without end.
        if found is not None and not named:
            raise DataError(
                f"{path}: {key} is {shown(found)}, expected {'a token' if key in NAMED_TOKENS else 'a name'}"
            )


def _is_llama(settings: dict[str, object]) -> bool:
    return str(settings.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer"


def _named_tokens(settings: dict[str, object]) -> Iterator[str]:
    entries = [settings.get(key) for key in NAMED_TOKENS]
    # The older name counts if the newer one is absent.
    others = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    entries += list(others.values()) if isinstance(others, dict) else others if isinstance(others, list) else []
    added = settings.get("added_tokens_decoder")
    entries += added.values() if isinstance(added, dict) else []
    for entry in entries:
        if token := token_text(entry):
            yield token


def _read(path: Path, parse: Callable[[str], object]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = pointer_in_place(path) or f"cannot be read: {' '.join(str(error).split())[:160]}"
        raise DataError(f"{path}: {problem}") from None


def _read_json(path: Path, settings: dict[str, object]) -> _Source:
    layout = _read(path, json.loads)
    try:
        vocabulary = layout["model"]["vocab"]
        # A unigram model lists its pieces with their scores; the other models map pieces to ids.
        ids = (
            {entry[0]: number for number, entry in enumerate(vocabulary)}
            if isinstance(vocabulary, list)
            else vocabulary
        )
        added = {token["content"]: int(token["id"]) for token in layout.get("added_tokens") or []}
        ids = {**ids, **added}
        strange = next((token for token, number in ids.items() if type(number) is not int or number < 0), None)
        if strange is not None:
            raise ValueError(f"{shown(strange)} has the id {shown(ids[strange])}")
        source = _Source(ids, dict(added), settings, lambda added: _json_encoder(path, layout, settings, added))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a tokenizer: {error!r}") from None
    if len(ids) <= len(added):
        raise DataError(f"{path} has no vocabulary beyond its {len(added)} special tokens")
    return source


def _json_encoder(path: Path, layout: PlainTable, settings: PlainTable, added: dict[str, int]) -> TextEncoder:
    tokens = configured_tokens(layout.get("added_tokens") or [], settings, added)
    if _is_llama(settings):  # transformers gives this class no normalizer
        tokens = [{**token, "normalized": False} for token in tokens]
    try:
        encoder = PlainTextEncoder({**layout, "added_tokens": tokens}, uses_of(settings))
    except DataError as error:
        raise DataError(f"tokenizer {path.parent}: {error}") from None
    except Exception as error:  # noqa: BLE001 the library raises nothing more special
        raise DataError(f"{path}: cannot be read as a tokenizer: {' '.join(str(error).split())[:160]}") from None
    if _is_llama(settings) and encoder.prefix_scheme != "never":
        encoder.prefix_scheme, encoder.doubles_prefix = _llama_scheme(settings), False
    return encoder


def _llama_scheme(settings: dict[str, object]) -> PrefixScheme:
    return "always" if settings.get("legacy") else "first"


def _added(folder: Path, settings: dict[str, object]) -> dict[str, int]:
    """Return the tokens of added_tokens.json with their ids, which transformers reads if the settings name none."""
    path = folder / "added_tokens.json"
    if settings.get("added_tokens_decoder") or not path.is_file():
        return {}
    found = _read(path, json.loads)
    if not isinstance(found, dict) or not all(type(number) is int and number >= 0 for number in found.values()):
        raise DataError(f"{path}: cannot be read: expected a JSON object of tokens and their ids")
    return found


def _read_sentencepiece(
    path: Path, settings: dict[str, object], *, is_bare: bool, added: Mapping[str, int] | None = None
) -> _Source:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        problem = pointer_in_place(path) or f"cannot be read as a SentencePiece model: {error}"
        raise DataError(f"{path}: {problem}") from None
    if not model.pieces:
        raise DataError(f"{path}: cannot be read as a SentencePiece model: it has no pieces")
    if is_bare or _is_llama(settings):
        require_encodable(path, model)
    ids = {piece.piece: number for number, piece in enumerate(model.pieces)} | dict(added or {})
    own = marked_pieces(model, settings) + listed_tokens(added or {})
    settings = _LLAMA_TOKENS | settings

    def encoder(added: dict[str, int]) -> TextEncoder:
        whole = WholeTokens(configured_tokens(own, settings, added), uses_of(settings))
        return SentencePieceEncoder(model, whole, _llama_scheme(settings))

    return _Source(ids, {token["content"]: token["id"] for token in own}, settings, encoder)
