"""Documents as their tokens are compared: those of indexed datasets, and texts as the tokenizer encodes them."""

import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from neva_recipes.plan.data.file_states import FileState
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer
from neva_recipes.sources.content import is_made
from neva_recipes.sources.indexed import indexed_documents, indexed_tokens, is_indexed, tokens_file
from neva_recipes.sources.records import scan_texts

__all__ = ["token_keys"]

_SECONDS = 0.25
"""Time for the files of a field, as for other documents."""

_SMALL, _FEW = 4 * 2**20, 2**19
"""Bytes of tokens, and of text to encode, up to which all documents of a field are read, whatever time it takes."""

_AT_ONCE = 64
"""Texts that are encoded in one call."""


@lru_cache(maxsize=64)
def token_keys(state: FileState, tokenizer: LocalTokenizer | None, share: float) -> tuple[Sequence[int], bool]:
    """Return a key for the tokens of each document of a file, without an end token, and whether these are all.

    All of a small file are read, otherwise from the beginning as many as time allows.

    Args:
        state: The file: an index, or text.
        tokenizer: Encodes text; without it no document of a text is seen.
        share: The file's share of the bytes of all its field's files, and so of their time.

    Raises:
        DataError: The file cannot be read, or does not have the expected form.
    """
    path, deadline = state.path, time.perf_counter() + _SECONDS * share
    ends = {None if tokenizer is None else tokenizer.eos_id}
    if is_indexed(path):
        found = indexed_tokens(path)
        ends.add(found.made.get("eod"))
        documents: Iterable[array[int]] = indexed_documents(found)
        is_small = tokens_file(path).stat().st_size <= _SMALL * share
    elif tokenizer is None:
        return [], False
    else:
        documents = _encoded(path, tokenizer)
        is_small = not is_made(path) and state.size <= _FEW * share
    keys = array("q")
    for tokens in documents:
        if tokens and tokens[-1] in ends:
            tokens.pop()
        if tokens:
            keys.append(hash(tokens.tobytes()))
        if not is_small and time.perf_counter() > deadline:
            return keys, False
    return keys, True


def _encoded(path: Path, tokenizer: LocalTokenizer) -> Iterator["array[int]"]:
    texts = (text for _, text in scan_texts(path) if _is_encodable(text))
    while some := list(islice(texts, _AT_ONCE)):
        for ids in tokenizer.encode_documents(some):
            yield array("i", ids)


def _is_encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
