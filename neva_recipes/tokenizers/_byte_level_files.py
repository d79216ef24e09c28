"""Byte-level BPE tokenizers: tokenizer.json of a directory, read, checked, and written with the files around it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError, PlainTable, pointer_in_place
from neva_recipes.prompts.tokens.vocabulary import next_id
from neva_recipes.prompts.tokens.whole_tokens import configured_tokens
from neva_recipes.tokenizers._places import (
    JSON_FILE,
    carried_files,
    named_tokens,
    outside_tokens,
    settings_of,
    token_flags,
)
from neva_recipes.tokenizers._writing import write_directory

__all__ = [
    "ByteLevelFile",
    "Pair",
    "add_outside",
    "backend_of",
    "encoding_with",
    "is_byte_level",
    "model_type",
    "open_byte_level",
    "read_json",
    "unusual_settings",
]

Pair = tuple[str, str]


@dataclass(frozen=True)
class ByteLevelFile:
    """A byte-level BPE tokenizer.

    Attributes:
        folder: Its directory.
        layout: The content of its tokenizer.json.
    """

    folder: Path
    layout: PlainTable

    @property
    def path(self) -> Path:
        """Its tokenizer.json."""
        return self.folder / JSON_FILE

    @property
    def vocabulary(self) -> dict[str, int]:
        """Id of every token that text can become."""
        found: dict[str, int] = self.layout["model"]["vocab"]
        return found

    @cached_property
    def added(self) -> dict[str, int]:
        """Id of every token that stands beside the vocabulary, such as `<|im_end|>`."""
        own = {token["content"]: token["id"] for token in self.layout.get("added_tokens") or []}
        found = own | outside_tokens(self.folder)
        for token in named_tokens(self.folder):
            if token not in found:
                found[token] = self.vocabulary.get(token, next_id({**self.vocabulary, **found}))
        return found

    @property
    def kinds(self) -> dict[str, bool]:
        """Whether each token that stands beside the vocabulary is a special one."""
        own = self.layout.get("added_tokens") or []
        entries = configured_tokens(own, settings_of(self.folder), self.added)
        return {entry["content"]: bool(entry["special"]) for entry in entries}

    @cached_property
    def merges(self) -> list[Pair]:
        """The merges in their order."""
        return [_pair(self.path, merge) for merge in self.layout["model"]["merges"]]

    def with_vocabulary(self, vocabulary: Mapping[str, int], merges: list[Pair]) -> PlainTable:
        """Return the content of a tokenizer.json that differs in vocabulary and merges only."""
        was_text = any(isinstance(merge, str) for merge in self.layout["model"]["merges"])
        written = [" ".join(pair) if was_text else list(pair) for pair in merges]
        return self.layout | {"model": self.layout["model"] | {"vocab": dict(vocabulary), "merges": written}}

    def write(self, target: Path, layout: PlainTable) -> None:
        """Write the directory with another tokenizer.json.

        Raises:
            CheckpointError: The target exists or cannot be written.
        """
        content = json.dumps(layout, indent=2, ensure_ascii=False) + "\n"
        write_directory(target, {JSON_FILE: content.encode()}, carried_files(self.folder))


def read_json(folder: Path) -> PlainTable:
    """Return the content of the tokenizer.json of a directory.

    Raises:
        DataError: It cannot be read.
    """
    path = folder / JSON_FILE
    try:
        layout = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: {pointer_in_place(path) or f'cannot be read: {reason}'}") from None
    if not isinstance(layout, dict) or not isinstance(layout.get("model"), dict):
        raise DataError(f"{path}: is no tokenizer: expected a JSON object with a model")
    return layout


def model_type(layout: PlainTable) -> object:
    """Return the type of the model of a tokenizer.json; those of old releases, such as GPT-2's, name none."""
    model = layout["model"]
    return model.get("type", "BPE" if "merges" in model else None)


def is_byte_level(layout: PlainTable) -> bool:
    """Return whether a tokenizer.json is byte-level BPE, as those of GPT-2, Llama 3 and Qwen."""
    if model_type(layout) != "BPE":
        return False
    parts = [layout.get("pre_tokenizer"), layout.get("decoder")]
    return any(kind == "ByteLevel" for part in parts for kind in _kinds(part))


def _kinds(part: Any) -> list[Any]:
    if not isinstance(part, dict):
        return []
    members = part.get("pretokenizers") or part.get("decoders") or [part]
    if not isinstance(members, list):
        return []
    return [member.get("type") for member in members if isinstance(member, dict)]


def unusual_settings(layout: PlainTable) -> dict[str, object]:
    """Return the settings of a BPE model with which tokens are no plain joins of others, or not always the same."""
    names = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
    return {name: layout["model"][name] for name in names if layout["model"].get(name)}


def open_byte_level(folder: Path, layout: PlainTable) -> ByteLevelFile:
    """Return the byte-level tokenizer of a directory.

    Args:
        folder: The directory.
        layout: The content of its tokenizer.json.

    Raises:
        DataError: Its vocabulary or merges cannot be used.
    """
    path, model = folder / JSON_FILE, layout["model"]
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not isinstance(model.get("merges"), list):
        raise DataError(f"{path}: its model has no vocab and merges")
    holders: dict[object, str] = {}
    for token, number in vocabulary.items():
        if type(number) is not int or number < 0:
            raise DataError(f"{path}: token {token} has the id {number}, expected a whole number")
        if number in holders:
            raise DataError(f"{path}: tokens {holders[number]} and {token} have the same id, {number}")
        holders[number] = token
    for name, value in unusual_settings(layout).items():
        raise DataError(f"{path}: is BPE with {name}={value!r}, which merge does not support")
    found = ByteLevelFile(folder, layout)
    backend = backend_of(path, layout)
    for token, number in ({**vocabulary, **_own_added(path, layout)}).items():
        if backend.token_to_id(token) != number:
            raise DataError(
                f"{path}: token {token} has the id {number}, but the tokenizers library gives it "
                f"{backend.token_to_id(token)}"
            )
    return found


def _own_added(path: Path, layout: PlainTable) -> dict[str, int]:
    try:
        return {token["content"]: int(token["id"]) for token in layout.get("added_tokens") or []}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its added_tokens cannot be read: {error!r}") from None


def _pair(path: Path, merge: object) -> Pair:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise DataError(f"{path}: a merge is {merge!r}, expected two tokens")
    return parts[0], parts[1]


def _require_prefix(path: Path, model: PlainTable) -> None:
    """Check what the library only panics at: a merge whose second part lacks the prefix that it takes off."""
    prefix, merges = model.get("continuing_subword_prefix"), model.get("merges")
    if not (prefix and isinstance(prefix, str) and isinstance(merges, list)):
        return
    for merge in merges:
        if not _pair(path, merge)[1].startswith(prefix):
            raise DataError(f"{path}: merge {merge!r} lacks continuing_subword_prefix={prefix!r} in its second part")


@contextmanager
def encoding_with(path: Path) -> Iterator[None]:
    """Raise a DataError for what the tokenizers library says of a text that it cannot encode.

    Args:
        path: The tokenizer.json, for the message.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 the library raises nothing more special
        raise DataError(f"{path}: cannot encode a text: {' '.join(str(error).split())[:160]}") from None


def backend_of(path: Path, layout: PlainTable) -> Any:
    """Return a `tokenizers.Tokenizer` of the content of a tokenizer.json.

    Raises:
        DataError: The library refuses it.
    """
    import tokenizers

    _require_prefix(path, layout["model"])
    try:
        # A length that some training has left there is no property of the vocabulary.
        return tokenizers.Tokenizer.from_str(json.dumps({**layout, "truncation": None, "padding": None}))
    except Exception as error:  # noqa: BLE001 the library raises nothing more special
        raise DataError(f"{path}: cannot be read as a tokenizer: {' '.join(str(error).split())[:160]}") from None


def add_outside(backend: Any, folder: Path, layout: PlainTable) -> None:
    """Add the tokens that only the configuration of a directory has, as transformers does.

    Args:
        backend: A `tokenizers.Tokenizer` of the directory.
        folder: The directory.
        layout: The content of its tokenizer.json.
    """
    from tokenizers import AddedToken

    own = {token["content"] for token in layout.get("added_tokens") or []}
    backend.add_tokens([AddedToken(token, **flags) for token, flags in token_flags(folder).items() if token not in own])
