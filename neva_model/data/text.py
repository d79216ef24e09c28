"""Plain text, joined into one stream of tokens and cut into full sequences."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neva_model.data._cache import build_once, data_file_state
from neva_model.data.sample import Sample
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import DataError
from neva_recipes.prompts.identity import key_of, text_words
from neva_recipes.sources.indexed import indexed_tokens, is_indexed, other_tokenizer, tokens_file
from neva_recipes.sources.records import scan_texts

__all__ = ["TextDataset"]

_BUFFER = 2**20
"""Number of tokens, or keys, collected before they are written."""


class TextDataset:
    """Windows of `sequence_length` predictions over a tokenized text file.

    Documents follow each other, each with the tokenizer's begin token before and its end token after it. A window
    begins with the last token of the previous window, so that every token but the very first is predicted once. The
    last window may be shorter.

    Attributes:
        data_path: The file, for messages.
        has_image: False throughout. [windows]
        lengths: Length of each window in tokens. [windows]
    """

    def __init__(self, data_path: str, sequence_length: int, tokenizer: Tokenizer, cache_folder: Path) -> None:
        """Tokenize the file, or map the tokens that another process has written.

        Args:
            data_path: JSONL with a "text" field in each line, any other file with one document per line, or the index
                of tokens, which are read where they are.
            sequence_length: Tokens of a window.
            tokenizer: The model's tokenizer.
            cache_folder: Folder for the tokens.

        Raises:
            DataError: The file cannot be read, does not have this form, or holds no text; or its tokens are those of
                another tokenizer.
        """
        self.data_path = data_path
        self._sequence_length = sequence_length
        path = self._path = Path(data_path)
        if is_indexed(path):
            self._cache, dtype = tokens_file(path), _type_of_tokens(path, tokenizer)
        else:
            self._cache, dtype = self._tokenized(path, tokenizer, cache_folder)
        self._tokens: NDArray[Any] = np.memmap(self._cache, dtype=dtype, mode="r")
        self.has_image = np.zeros(len(self), dtype=np.bool_)
        self.lengths = np.full(len(self), sequence_length, dtype=np.int32)

    def _tokenized(self, path: Path, tokenizer: Tokenizer, cache_folder: Path) -> tuple[Path, np.dtype]:
        sources = ("text", *data_file_state(path), tokenizer.fingerprint())
        dtype = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
        return build_once(
            cache_folder, sources, f".{dtype}", lambda target: _write_tokens(path, tokenizer, dtype, target)
        ), dtype

    def keys(self) -> NDArray[np.uint64]:
        """Return the key of each document of the file, which identifies it in other files; none for files of tokens.

        This reads the file once more, in a hundredth of the time that its tokens took.

        Raises:
            DataError: The file can no longer be read.
            RunError: The cache cannot be written to.
        """
        if is_indexed(self._path):
            return np.zeros(0, dtype=np.uint64)
        sources = ("keys of documents", *data_file_state(self._path))
        kept = build_once(self._cache.parent, sources, ".keys", lambda target: _write_keys(self._path, target))
        return np.memmap(kept, dtype=np.uint64, mode="r")

    def __len__(self) -> int:
        return -(-(len(self._tokens) - 1) // self._sequence_length)

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would carry the whole file to a spawned worker.
        return {**self.__dict__, "_tokens": self._tokens.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._tokens = np.memmap(self._cache, dtype=state["_tokens"], mode="r")

    def load(self, position: int) -> Sample:
        """Return one window."""
        start = position * self._sequence_length
        window = torch.from_numpy(self._tokens[start : start + self._sequence_length + 1].astype(np.int64))
        return Sample(window[:-1], window[1:])


def _type_of_tokens(path: Path, tokenizer: Tokenizer) -> np.dtype:
    found = indexed_tokens(path)
    if found.tokens < 2:
        raise DataError(f"{path}: holds no text")
    if problem := other_tokenizer(found, tokenizer.vocabulary_digest(), tokenizer.vocab_size):
        raise DataError(f"{path}: {problem}")
    return np.dtype("<u2" if found.kind.size == 2 else "<i4")


def _write_keys(path: Path, target: Path) -> None:
    with target.open("wb") as file:
        keys = (key_of(text_words(text)) for _, text in scan_texts(path))
        while some := list(itertools.islice(keys, _BUFFER)):
            np.array(some, dtype=np.uint64).tofile(file)


def _write_tokens(path: Path, tokenizer: Tokenizer, dtype: np.dtype, target: Path) -> None:
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    total, buffer = 0, []
    with target.open("wb") as file:
        for number, document in scan_texts(path):
            try:
                buffer += [*begin, *tokenizer.encode_text(document, prefix=True), *end]
            except DataError as error:
                raise DataError(f"{path}: document {number}: {error}") from None
            if len(buffer) >= _BUFFER:
                np.array(buffer, dtype=dtype).tofile(file)
                total, buffer = total + len(buffer), []
        np.array(buffer, dtype=dtype).tofile(file)
    if total + len(buffer) < 2:
        raise DataError(f"{path}: holds no text")
