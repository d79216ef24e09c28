"""Encodes batches of records: in this process, or in several others."""

import contextlib
import os
import signal
import threading
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError, RunError
from neva_recipes.interruption import uninterrupted
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, kept_tokenizer
from neva_recipes.sources.indexed import token_type
from neva_recipes.token_data._batches import Batch
from neva_recipes.token_data._documents import Division, texts_of
from neva_recipes.token_data.settings import Counts, Place, Settings

__all__ = ["Encoded", "encode_batches", "open_tokenizer"]

_AT_ONCE = 64
"""Documents that are encoded in one call; the ids of more would leave the processor's cache before they are packed."""

_AHEAD = 3
"""Batches that wait for each process."""

_OF_LIBRARIES = (Exception, RuntimeError)
"""What tokenizers and SentencePiece raise about a text. Any other type, also one of these kinds, is a fault of ours."""


class PartTokens(NamedTuple):
    """What a part gets of a batch.

    Attributes:
        tokens: Its tokens, as they stand in a file.
        lengths: The number of tokens of each document, as int32.
    """

    tokens: bytes
    lengths: bytes


class Encoded(NamedTuple):
    """A batch of which the records have become tokens.

    Attributes:
        path: Its file.
        end: Where its records end.
        ends_file: Whether the file ends there.
        parts: What each part gets.
        counts: What was counted.
    """

    path: Path
    end: Place
    ends_file: bool
    parts: tuple[PartTokens, ...]
    counts: Counts


class _Document(NamedTuple):
    number: int
    text: str
    part: int


def open_tokenizer(path: Path, *, append_eod: bool) -> LocalTokenizer:
    """Return the tokenizer of a file or directory.

    Raises:
        DataError: It cannot be used, or has no end token where one is needed.
    """
    tokenizer = kept_tokenizer(path, use_im_start_end=False)
    if tokenizer is None:
        raise DataError(f"tokenizer {path}: only transformers can read it: save it with a tokenizer.json")
    if append_eod and tokenizer.eos_id is None:
        raise DataError(f"tokenizer {path}: names no eos_token, which --append-eod puts behind each document")
    return tokenizer


class _Encoding:
    """Encodes batches, in one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tokenizer = open_tokenizer(settings.tokenizer, append_eod=settings.append_eod)
        self._kind = token_type(self._tokenizer.vocab_size)
        eod = self._tokenizer.eos_id
        self._end = [eod] if settings.append_eod and eod is not None else []
        self._division = Division(settings.split, settings.seed)

    def encode(self, batch: Batch) -> Encoded:
        """Encode a batch.

        Raises:
            DataError: A record cannot be used.
        """
        documents, empty, words, size = list[_Document](), 0, 0, 0
        for number, record in enumerate(batch.records, batch.place.record):
            fields = texts_of(batch, number, record, self._settings.json_keys)
            part = self._division.part_of(fields)
            for text in fields:
                if count := len(text.split()):
                    documents.append(_Document(number, text, part))
                    words, size = words + count, size + (len(text) if text.isascii() else len(text.encode()))
                else:
                    empty += 1
        tokens = [array(self._kind.array) for _ in self._settings.split]
        lengths = [array("i") for _ in self._settings.split]
        for start in range(0, len(documents), _AT_ONCE):
            some = documents[start : start + _AT_ONCE]
            for document, found in zip(some, self._ids(batch.path, some), strict=True):
                if not found:
                    empty += 1
                    continue
                found += self._end
                tokens[document.part].fromlist(found)
                lengths[document.part].append(len(found))
        parts = tuple(PartTokens(one.tobytes(), other.tobytes()) for one, other in zip(tokens, lengths, strict=True))
        counts = Counts(sum(map(len, lengths)), empty, sum(map(len, tokens)), words, size)
        return Encoded(batch.path, batch.end, batch.kind == "end", parts, counts)

    def _ids(self, path: Path, documents: Sequence[_Document]) -> list[list[int]]:
        with _one_thread():
            try:
                return self._tokenizer.encode_documents([document.text for document in documents])
            except Exception as error:  # the libraries raise nothing more special
                if type(error) not in _OF_LIBRARIES:
                    raise
                return [self._ids_of(path, document) for document in documents]

    def _ids_of(self, path: Path, document: _Document) -> list[int]:
        try:
            return self._tokenizer.encode_text(document.text, prefix=True)
        except Exception as error:  # as above
            if type(error) not in _OF_LIBRARIES:
                raise
            reason = " ".join(str(error).split())[:160]
            raise DataError(f"{path}: record {document.number}: the tokenizer cannot encode it: {reason}") from None


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep the tokenizers library from threads of its own: the processes are as many as the user wants."""
    name = "TOKENIZERS_PARALLELISM"
    earlier = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[name]
        else:
            os.environ[name] = earlier


def encode_batches(batches: Iterable[Batch], settings: Settings, workers: int) -> Iterator[Encoded]:
    """Yield the encoded batches in their order.

    Args:
        batches: The batches.
        settings: How they are encoded.
        workers: Number of processes that encode; with 1 it is this one.

    Raises:
        DataError: A record cannot be used.
        RunError: A process was killed.
    """
    if workers == 1:
        yield from map(_Encoding(settings).encode, batches)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (settings,))
    waiting = deque[Future[Encoded]]()
    try:
        for batch in batches:
            with uninterrupted():  # a new process does not print where Ctrl-C has met it
                waiting.append(pool.submit(_encode, batch))
            if len(waiting) > workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise RunError("a process that encodes was killed, as for want of memory: take fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


_encoding: _Encoding | None = None
"""That of a process that does nothing but encode."""


def _start(settings: Settings) -> None:
    global _encoding
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _encoding = _Encoding(settings)


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however that happened."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _encode(batch: Batch) -> Encoded:
    assert _encoding is not None
    return _encoding.encode(batch)
