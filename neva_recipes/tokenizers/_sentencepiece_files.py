"""SentencePiece models as files: read and checked, written whole, alone or with the directory around them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError, PlainTable, path_is, pointer_in_place
from neva_recipes.prompts.tokens.vocabulary import next_id
from neva_recipes.tokenizers._places import (
    CONFIG_FILE,
    JSON_FILE,
    MODEL_FILE,
    carried_files,
    declaring_configuration,
    named_tokens,
    outside_tokens,
    settings_of,
)
from neva_recipes.tokenizers._writing import write_directory, write_file

__all__ = ["SentencePieceFile", "loaded", "open_place", "piece_ids", "type_name"]


@dataclass(frozen=True)
class SentencePieceFile:
    """A SentencePiece model and where it comes from.

    Attributes:
        path: Its file.
        model: Its content, a `ModelProto` of SentencePiece.
        folder: The directory that was named and whose configuration goes with it; `None` for a bare model.
    """

    path: Path
    model: Any
    folder: Path | None

    @property
    def has_json(self) -> bool:
        """Whether a tokenizer.json, which holds the same vocabulary, lies beside the model."""
        return self.folder is not None and (self.folder / JSON_FILE).is_file()

    @property
    def settings(self) -> PlainTable:
        """The configuration of the directory."""
        return {} if self.folder is None else settings_of(self.folder)

    @cached_property
    def outside(self) -> dict[str, int]:
        """Id of every token that the configuration of the directory gives an id."""
        return {} if self.folder is None else outside_tokens(self.folder)

    @cached_property
    def named(self) -> dict[str, int]:
        """Id that transformers gives to every token which the configuration only names: the next free ones."""
        if self.folder is None:
            return {}
        known = {**piece_ids(self.model), **self.outside}
        names = (token for token in named_tokens(self.folder) if token not in known)
        return {token: number for number, token in enumerate(names, start=next_id(known))}

    def write(
        self, target: Path, model: Any, tokens: Mapping[str, int] | None = None, *, special: bool = False
    ) -> None:
        """Write another model in the place of this one: a file for a file, a directory for a directory.

        Args:
            target: The file or directory.
            model: The model, a `ModelProto`.
            tokens: Id of every token that the configuration of the directory must declare too.
            special: Whether these are special tokens.

        Raises:
            CheckpointError: The target exists or cannot be written.
            DataError: The model cannot be used, or a token of the configuration would get another id.
        """
        loaded(self.path, model)
        content = model.SerializeToString(deterministic=True)
        if self.folder is None:
            write_file(target, content)
            return
        self._require_places(model)
        contents = {MODEL_FILE: content}
        configuration = self.folder / CONFIG_FILE
        if tokens and configuration.is_file():
            contents[CONFIG_FILE] = declaring_configuration(configuration, tokens, special=special)
        write_directory(target, contents, carried_files(self.folder))

    def _require_places(self, model: Any) -> None:
        """Check that no piece takes the id of a token that the configuration adds or names behind the vocabulary."""
        for token, number in sorted(self.outside.items(), key=lambda item: item[1]):
            if len(self.model.pieces) <= number < len(model.pieces) and model.pieces[number].piece != token:
                raise DataError(
                    f"{self.folder}: its configuration adds {token} as {number}, where {model.pieces[number].piece} "
                    f"would stand: make {token} a piece first, with nemo-run tokenizer add-tokens --token"
                )
        if len(model.pieces) == len(self.model.pieces):
            return
        ids = piece_ids(model)
        for token, number in self.named.items():
            if ids.get(token) != number:
                raise DataError(
                    f"{self.folder}: its configuration names {token} without an id, so transformers gives it the next "
                    f"one, {number}: make {token} a piece first, with nemo-run tokenizer add-tokens --token"
                )


def open_place(place: Path) -> SentencePieceFile:
    """Read the SentencePiece model that a file is, or that a directory holds.

    Raises:
        DataError: There is none, or it cannot be used.
    """
    folder = place if path_is(place, Path.is_dir) else None
    path = place if folder is None else place / MODEL_FILE
    if folder is not None and not path_is(path):
        raise DataError(f"{folder}: holds no tokenizer: expected {MODEL_FILE} or {JSON_FILE}")
    return SentencePieceFile(path, _read(path), folder)


def _read(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except DecodeError as error:
        problem = pointer_in_place(path) or f"is not a SentencePiece model: {error}"
        raise DataError(f"{path}: {problem}") from None
    if not model.pieces:
        raise DataError(f"{path}: is not a SentencePiece model: it has no pieces")
    # Both stand behind the pieces.
    if not (model.HasField("trainer_spec") and model.HasField("normalizer_spec")):
        raise DataError(f"{path}: ends after piece {len(model.pieces) - 1}: it is truncated, get it again")
    seen: set[str] = set()
    for number, piece in enumerate(model.pieces):
        if not isinstance(piece.piece, str):  # protobuf gives bytes that are not UTF-8 as they are
            raise DataError(f"{path}: piece {number}, {piece.piece!r}, is not UTF-8 text: the file is damaged")
        if piece.piece in seen:
            raise DataError(f"{path}: piece {number}, {piece.piece}, stands there twice")
        if not math.isfinite(piece.score):
            raise DataError(f"{path}: piece {number}, {piece.piece}, has the score {piece.score}")
        seen.add(piece.piece)
    loaded(path, model)
    return model


def loaded(path: Path, model: Any) -> Any:
    """Return a `SentencePieceProcessor` of a model.

    Args:
        path: The model's file, for the message.
        model: Its content, a `ModelProto`.

    Raises:
        DataError: The library refuses it.
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model.SerializeToString())
    except RuntimeError as error:
        raise DataError(f"{path}: SentencePiece refuses the model: {' '.join(str(error).split())[:200]}") from None
    return processor


def piece_ids(model: Any) -> dict[str, int]:
    """Return the id of every piece of a `ModelProto`."""
    return {piece.piece: number for number, piece in enumerate(model.pieces)}


def type_name(model: Any, number: int) -> str:
    """Return the type of a piece in words, such as user-defined."""
    name: str = model.SentencePiece.Type.Name(model.pieces[number].type)
    return name.lower().replace("_", "-")
