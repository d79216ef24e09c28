"""Which SentencePiece models transformers encodes as SentencePiece does; plan and worker refuse all others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError

__all__ = ["require_encodable", "require_model_file", "unlike_sentencepiece"]

_SETTINGS = "model_type='bpe', byte_fallback=True, normalization_rule_name='identity', remove_extra_whitespaces=False"
"""Arguments for SentencePieceTrainer that make a model which transformers encodes as SentencePiece does."""


_FOLDER_FILES = frozenset(
    (
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "config.json"),
    )
)
"""Files of a tokenizer that is named by its folder."""


def require_model_file(path: Path) -> None:
    """Check by its name that a file that is named as a tokenizer is not one of several that make it together.

    Raises:
        DataError: It is such a file; the message names the folder.
    """
    if path.name in _FOLDER_FILES:
        raise DataError(f"{path}: is one file of a tokenizer: name its folder, {path.parent}")


def require_encodable(path: Path, model: object) -> None:
    """Check that transformers' Llama tokenizer encodes text as a SentencePiece model does.

    It is BPE with byte fallback and a space before the text. It reads the pieces of the model and none of its settings.

    Args:
        path: The model's file, for the message.
        model: Its content, a `ModelProto` of SentencePiece.

    Raises:
        DataError: The model has other settings; the message names them.
    """
    if others := list(_other_settings(model)):
        raise unlike_sentencepiece(path, f" ({', '.join(others)})")


def unlike_sentencepiece(path: Path, why: str = "") -> DataError:
    """Return the error for a model that transformers encodes otherwise.

    Args:
        path: The model's file.
        why: Its settings that cause this, in parentheses after a space; empty if unknown.
    """
    return DataError(
        f"tokenizer {path}: transformers does not encode text as this SentencePiece model does{why}. Expected one "
        f"trained with {_SETTINGS} (as Llama's), or a directory with a tokenizer.json"
    )


def _other_settings(model: Any) -> Iterator[str]:
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if trainer.model_type != trainer.BPE:
        yield f"model_type={trainer.ModelType.Name(trainer.model_type).lower()!r}"
    if normalizer.precompiled_charsmap:
        yield f"normalization_rule_name={normalizer.name!r}"
    wanted = {
        "byte_fallback": (trainer, True),
        "remove_extra_whitespaces": (normalizer, False),
        "add_dummy_prefix": (normalizer, True),
        "escape_whitespaces": (normalizer, True),
        "treat_whitespace_as_suffix": (trainer, False),
    }
    yield from (f"{name}={not value}" for name, (spec, value) in wanted.items() if getattr(spec, name) is not value)
