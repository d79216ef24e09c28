"""Finds and loads a tokenizer: a Hugging Face directory, a hub name, or a bare SentencePiece model file."""

import json
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from neva_model.tokenizers.tokenizer import Tokenizer
from neva_recipes.config import DataError, Recipe, pointer_in_place, tokenizer_name
from neva_recipes.plan.tokenizers.sentencepiece_models import (
    require_encodable,
    require_model_file,
    unlike_sentencepiece,
)

__all__ = ["load_recipe_tokenizer", "load_tokenizer", "read_otherwise"]

_PROBE = "Hello  world\n\tAn 'a' \ufb01x: \u00e9\uff21 \u65e5\u672c 12"
"""A text whose ids differ wherever transformers and SentencePiece disagree about spaces, bytes or normalisation."""

_MOST_PROBES = 2000
"""Tokens of a vocabulary whose texts are encoded twice, which takes some tens of milliseconds."""

_FILE_ALONE = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes without a way of their own to cut text, by their names in transformers 4 and 5."""


def load_tokenizer(name_or_path: str, *, vocab_size: int | None, use_im_start_end: bool = False) -> Tokenizer:
    """Load a tokenizer and check it against the model.

    Args:
        name_or_path: A Hugging Face directory, a hub name `owner/name`, or a SentencePiece `.model` file.
        vocab_size: The model's `model.language.vocab_size`; `None` leaves it unchecked.
        use_im_start_end: Mark where images begin and end. Adds two tokens, which count in `vocab_size`, unless the
            vocabulary has NeMo's tokens for this.

    Raises:
        DataError: The tokenizer cannot be read, is empty, encodes text differently from its SentencePiece model, or is
            larger than the model's vocabulary.
    """
    path = Path(name_or_path)
    sentencepiece_file = path if path.is_file() else path / "tokenizer.model"
    if path.is_file():
        require_model_file(path)
        hf = _load_sentencepiece(path)
    elif path.is_dir():
        bare = sentencepiece_file.is_file() and not any(
            (path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
        )
        hf = _load_sentencepiece(sentencepiece_file) if bare else _load_hugging_face(name_or_path)
    elif name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~")):
        hf = _load_hugging_face(name_or_path)
    else:
        raise DataError(
            f"tokenizer {name_or_path} does not exist: expected a directory, a .model file, or a hub name, owner/name"
        )
    tokenizer = Tokenizer(hf, name_or_path, use_im_start_end=use_im_start_end)
    if sentencepiece_file.is_file() and not (path / "tokenizer.json").is_file():
        _compare_with_sentencepiece(tokenizer, sentencepiece_file)
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        with_marks = ", those of use_im_start_end counted" if tokenizer.adds_image_tokens else ""
        raise DataError(
            f"tokenizer {name_or_path} has {tokenizer.vocab_size} tokens{with_marks}, but "
            f"model.language.vocab_size={vocab_size}: use the model's own tokenizer"
        )
    return tokenizer


def load_recipe_tokenizer(recipe: Recipe) -> Tokenizer:
    """Load the tokenizer that a recipe names, or that of the language model it starts from.

    Raises:
        DataError: The tokenizer cannot be used with the model.
        RecipeError: The recipe names neither a tokenizer nor a language model to take it from.
    """
    return load_tokenizer(
        tokenizer_name(recipe),
        vocab_size=recipe.model.language.vocab_size,
        use_im_start_end=recipe.model.use_im_start_end,
    )


def read_otherwise(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Return a text that transformers' AutoTokenizer cuts otherwise than a tokenizer; `None` if none was found.

    Args:
        folder: A directory with the tokenizer, and with the config.json whose family AutoTokenizer goes by.
        tokenizer: The tokenizer of the training.
    """
    theirs = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    step = max(1, tokenizer.vocab_size // _MOST_PROBES)
    probes = [_PROBE, *(tokenizer.hf.decode([number]) for number in range(0, tokenizer.vocab_size, step))]
    ids = (reader(probes, add_special_tokens=False)["input_ids"] for reader in (theirs, tokenizer.hf))
    return next((text for text, one, other in zip(probes, *ids, strict=True) if one != other), None)


def _load_hugging_face(name_or_path: str) -> Any:
    try:
        hf = _class_of(Path(name_or_path)).from_pretrained(name_or_path, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 transformers checks few types, and tokenizers raises nothing more special
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"tokenizer {name_or_path} cannot be loaded: {reason}") from None
    if "" in hf.special_tokens_map.values():
        # transformers looks for such a token until the stack overflows.
        raise DataError(f"tokenizer {name_or_path} names a special token that is empty: {hf.special_tokens_map}")
    if not getattr(hf, "is_fast", False):
        raise DataError(
            f"tokenizer {name_or_path} is a {type(hf).__name__} without a tokenizers backend: "
            "save it with a tokenizer.json"
        )
    return hf


def _class_of(folder: Path) -> Any:
    """Return the class that reads a tokenizer: that of the family of models, unless a directory says that none does.

    Beside a config.json, AutoTokenizer of transformers 5 takes the class of its model_type even where
    tokenizer_config.json says that tokenizer.json is all there is: a Qwen2Tokenizer then cuts numbers as Qwen does,
    whatever the file says.
    """
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"]
    except (OSError, ValueError, KeyError, TypeError):  # AutoTokenizer says what is wrong
        return AutoTokenizer
    is_file_alone = named in _FILE_ALONE and (folder / "tokenizer.json").is_file()
    return PreTrainedTokenizerFast if is_file_alone else AutoTokenizer


def _load_sentencepiece(path: Path) -> Any:
    """Load a bare model file through a directory that names the Llama class, which keeps bytes and the leading space.

    `LlamaTokenizer(vocab_file=...)` would return an empty tokenizer without an error.
    """
    _read_sentencepiece(path)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.model").write_bytes(path.read_bytes())
        Path(folder, "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": False})
        )
        return _load_hugging_face(folder)


def _read_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(path.read_bytes())
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        problem = pointer_in_place(path) or f"is not a SentencePiece model: {reason}"
        raise DataError(f"tokenizer {path} {problem}") from None
    return processor


def _compare_with_sentencepiece(tokenizer: Tokenizer, path: Path) -> None:
    processor = _read_sentencepiece(path)
    if isinstance(tokenizer.hf, LlamaTokenizer):  # other classes are made for other models
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(path.read_bytes())
        require_encodable(path, model)
    if tokenizer.vocab_size < processor.get_piece_size():
        raise DataError(
            f"tokenizer {path} has {processor.get_piece_size()} pieces but loads with {tokenizer.vocab_size} tokens: "
            "put a tokenizer.json beside it"
        )
    if tokenizer.encode_text(_PROBE, prefix=True) != processor.encode(_PROBE):
        raise unlike_sentencepiece(path)
