"""Makes indexed datasets out of text files."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError, PlainTable
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer
from neva_recipes.sources.indexed import token_type
from neva_recipes.token_data._batches import read_batches
from neva_recipes.token_data._encoding import encode_batches, open_tokenizer
from neva_recipes.token_data._inputs import file_states, text_files
from neva_recipes.token_data._work import Work, work_folder
from neva_recipes.token_data.settings import PARTS, SEED, Counts, Settings

__all__ = ["Progress", "TokenData", "make_token_data"]

_SCHEMA = 1

_LEAST_SECONDS, _LEAST_TIMES = 0.05, 20
"""Between two saves there is this time, and this many times that of the last save, which waits for the disk."""


class Progress(NamedTuple):
    """How far the making is.

    Attributes:
        counts: What was counted so far.
        file: The number of the file that is read, from 0.
        files: Number of files.
        share: The share of the input that is done, by bytes; of compressed files and parquet, whole files.
        seconds: Seconds since this process has begun.
        new_tokens: Tokens of this process.
    """

    counts: Counts
    file: int
    files: int
    share: float
    seconds: float
    new_tokens: int


class TokenData(NamedTuple):
    """What was made.

    Attributes:
        counts: What was counted.
        documents: Documents of each part that has some.
        tokens: Tokens of each part that has some.
        lacking: Parts that have a weight and no document, and so no files.
        notes: What is worth knowing.
        goes_on: Whether a killed process had begun it.
    """

    counts: Counts
    documents: dict[str, int]
    tokens: dict[str, int]
    lacking: list[str]
    notes: list[str]
    goes_on: bool


def make_token_data(
    named: Sequence[Path],
    target: Path,
    *,
    tokenizer: Path,
    json_keys: Sequence[str],
    append_eod: bool = False,
    workers: int = 1,
    split: Sequence[float] = (1.0, 0.0, 0.0),
    seed: int = SEED,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> TokenData:
    """Write text files as indexed datasets, whole or not at all; a killed call is gone on with by the next one.

    Args:
        named: Files of text, JSONL or parquet, and folders of them; gzip or zstd if need be.
        target: The folder to write; must not exist yet.
        tokenizer: File or directory of the tokenizer.
        json_keys: The fields of JSONL and parquet that hold text; each is a document.
        append_eod: Put the tokenizer's end token behind each document.
        workers: Number of processes that encode. The result does not depend on it.
        split: The weights of training, validation and test documents. A document gets into a part by its text.
        seed: Decides which.
        tell: Is told how far it is, after each batch.

    Raises:
        CheckpointError: The target exists or cannot be written.
        DataError: A file or the tokenizer cannot be used.
        RunError: Another process writes the target, or one that encodes was killed.
    """
    files, notes = text_files(named)
    settings = Settings(tuple(files), tokenizer, tuple(json_keys), append_eod, tuple(map(float, split)), seed)
    states = file_states(files)
    opened = open_tokenizer(tokenizer, append_eod=append_eod)
    made_of = _made_of(settings, opened, states)
    parts = [number for number, weight in enumerate(settings.split) if weight]
    with work_folder(target) as folder:
        work = Work(folder, made_of, token_type(opened.vocab_size), parts)
        try:
            _write(work, settings, workers, folder, _Teller(states, work, tell))
            documents, tokens = _named(work.documents), _named(work.tokens)
            made = {**made_of, "counts": work.counts._asdict(), "documents": documents, "tokens": tokens}
            work.finish(target, made)
        finally:
            work.close()
    lacking = [PARTS[part] for part in parts if not work.documents[part]]
    return TokenData(work.counts, documents, tokens, lacking, notes, work.goes_on)


def _made_of(settings: Settings, tokenizer: LocalTokenizer, states: Sequence[PlainTable]) -> PlainTable:
    """Return what determines the content, as `TOKENS_FILE` says it."""
    return {
        "schema": _SCHEMA,
        "tokenizer": {
            "name": str(settings.tokenizer.absolute()),
            "vocabulary": tokenizer.vocabulary_digest,
            "size": tokenizer.vocab_size,
        },
        "json_keys": list(settings.json_keys),
        "eod": tokenizer.eos_id if settings.append_eod else None,
        "split": list(settings.split),
        "seed": settings.seed,
        "sources": list(states),
    }


def _write(work: Work, settings: Settings, workers: int, folder: Path, teller: "_Teller") -> None:
    due = time.monotonic() + _LEAST_SECONDS
    for encoded in encode_batches(read_batches(settings, work.place, folder), settings, workers):
        if encoded.ends_file and not work.in_file:
            raise DataError(f"{encoded.path}: holds no text: remove it, or name only the others")
        work.add(encoded)
        if (began := time.monotonic()) > due:
            work.save()
            ended = time.monotonic()
            due = ended + max(_LEAST_SECONDS, _LEAST_TIMES * (ended - began))
        teller.tell(work)


def _named(numbers: dict[int, int]) -> dict[str, int]:
    return {PARTS[part]: number for part, number in numbers.items() if number}


class _Teller:
    """Tells how far the making is."""

    def __init__(self, states: Sequence[PlainTable], work: Work, tell: Callable[[Progress], None]) -> None:
        self._sizes = [int(state["bytes"]) for state in states]
        self._began, self._before = time.monotonic(), work.counts.tokens
        self._tell = tell

    def tell(self, work: Work) -> None:
        place = work.place
        here = min(place.offset, self._sizes[place.file]) if place.file < len(self._sizes) else 0
        share = (sum(self._sizes[: place.file]) + here) / max(1, sum(self._sizes))
        seconds = time.monotonic() - self._began
        new = work.counts.tokens - self._before
        self._tell(Progress(work.counts, place.file, len(self._sizes), share, seconds, new))
