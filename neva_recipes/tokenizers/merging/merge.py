"""Merges the tokenizer of a new language into that of a model: `nemo-run tokenizer merge`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import DataError, PlainTable, path_is
from neva_recipes.storage.exports import require_new
from neva_recipes.tokenizers._byte_level_files import (
    ByteLevelFile,
    backend_of,
    encoding_with,
    is_byte_level,
    model_type,
    open_byte_level,
    read_json,
)
from neva_recipes.tokenizers._places import JSON_FILE, MODEL_FILE, find_tokenizer
from neva_recipes.tokenizers._sentencepiece_files import SentencePieceFile, loaded, open_place
from neva_recipes.tokenizers._texts import TEXT_KEYS, text_lines
from neva_recipes.tokenizers.merging._byte_level import unite_byte_level
from neva_recipes.tokenizers.merging._sentencepiece import unite_sentencepiece
from neva_recipes.tokenizers.merging._union import Union

__all__ = ["ChangedLine", "Merger", "OldText", "merge"]

_SHOWN = 5

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class ChangedLine:
    """A line that became other ids.

    Attributes:
        number: The number of its document in the file, counted from 1.
        pieces: The new pieces in it.
    """

    number: int
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class OldText:
    """What a merge changed in a text.

    Attributes:
        lines: Number of lines that are not blank.
        changed: Number of lines with other ids.
        first: The first of these.
    """

    lines: int
    changed: int
    first: tuple[ChangedLine, ...]


@dataclass(frozen=True)
class Merger:
    """What a merge did.

    Attributes:
        tokens: What became of the tokens.
        old_text: What changed in the old text; `None` without one.
        drops_json: Whether a tokenizer.json was left out, which has the old vocabulary.
    """

    tokens: Union
    old_text: OldText | None
    drops_json: bool


def merge(
    base: str,
    new: str,
    target: Path,
    *,
    old_text: Path | None = None,
    json_keys: Sequence[str] = TEXT_KEYS,
) -> Merger:
    """Write a tokenizer with the tokens of two: those of the base keep their ids, and are found in a text first.

    Args:
        base: A SentencePiece model of BPE, or a directory with a byte-level tokenizer.json; or a hub name.
        new: Another one of the same kind.
        target: What to write, a file or a directory as the base; must not exist yet.
        old_text: Text whose ids are compared before and after: lines, or JSONL; may be compressed with gzip.
        json_keys: The fields of a record of JSONL that hold text.

    Raises:
        CheckpointError: The target exists or cannot be written.
        DataError: A tokenizer or the text cannot be used, or the tokenizers are of two kinds.
    """
    one, other = _opened(base), _opened(new)
    require_new(target, "file" if isinstance(one, SentencePieceFile) and one.folder is None else "directory")
    if isinstance(one, SentencePieceFile) and isinstance(other, SentencePieceFile):
        model, tokens = unite_sentencepiece(one, other)
        encoders = loaded(one.path, one.model).encode, loaded(one.path, model).encode
        changed = None if old_text is None else _compared(old_text, json_keys, *encoders, tokens)
        one.write(target, model)
        return Merger(tokens, changed, one.has_json)
    if isinstance(one, ByteLevelFile) and isinstance(other, ByteLevelFile):
        layout, tokens = unite_byte_level(one, other)
        before, after = _byte_level_encoder(one, one.layout), _byte_level_encoder(one, layout)
        changed = None if old_text is None else _compared(old_text, json_keys, before, after, tokens)
        one.write(target, layout)
        return Merger(tokens, changed, drops_json=False)
    raise DataError(f"{base} is {_kind(one)} and {new} is {_kind(other)}: only tokenizers of one kind are merged")


def _opened(name: str) -> SentencePieceFile | ByteLevelFile:
    place = find_tokenizer(name)
    if path_is(place / JSON_FILE):
        layout = read_json(place)
        if is_byte_level(layout):
            return open_byte_level(place, layout)
        if not path_is(place / MODEL_FILE):
            kind = model_type(layout)
            raise DataError(
                f"{place / JSON_FILE}: is a {kind} tokenizer, which merge does not support: expected byte-level BPE, "
                f"or the {MODEL_FILE} of a SentencePiece BPE"
            )
    return open_place(place)


def _kind(tokenizer: SentencePieceFile | ByteLevelFile) -> str:
    return "a SentencePiece model" if isinstance(tokenizer, SentencePieceFile) else "byte-level BPE"


def _byte_level_encoder(base: ByteLevelFile, layout: PlainTable) -> Encode:
    backend = backend_of(base.path, layout)

    def encode(text: str) -> list[int]:
        with encoding_with(base.path):
            return list(backend.encode(text, add_special_tokens=False).ids)

    return encode


def _compared(path: Path, json_keys: Sequence[str], before: Encode, after: Encode, tokens: Union) -> OldText:
    lines, changed = 0, []
    for line in text_lines([path], json_keys):
        lines += 1
        ids = after(line.text)
        if ids != before(line.text):
            fresh = dict.fromkeys(one for one in ids if one >= tokens.base_size)
            changed.append(ChangedLine(line.number, tuple(tokens.added[one - tokens.base_size] for one in fresh)))
    return OldText(lines, len(changed), tuple(changed[:_SHOWN]))
