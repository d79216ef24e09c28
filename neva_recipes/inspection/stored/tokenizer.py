"""A directory that holds a tokenizer and no model."""

import shlex
from pathlib import Path

from neva_recipes.config import how_many
from neva_recipes.inspection.stored.stored_model import StoredModel, Use
from neva_recipes.plan.origins.checkpoints import is_checkpoint
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.run_directory.layout import CHECKPOINTS, RECIPE_FILE

__all__ = ["holds_only_tokenizer", "read_stored_tokenizer"]

_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
_NO_MODEL = "holds no model"


def holds_only_tokenizer(path: Path) -> bool:
    """Return whether a directory that is not one of Hugging Face's models holds a tokenizer, and is no run of ours."""
    is_ours = is_checkpoint(path) or (path / CHECKPOINTS).is_dir() or (path / RECIPE_FILE).is_file()
    return not is_ours and any((path / name).is_file() for name in _FILES)


def read_stored_tokenizer(path: Path) -> StoredModel:
    """Return what is known of a directory with a tokenizer alone.

    Raises:
        DataError: A file of the tokenizer cannot be read.
    """
    tokenizer, name = read_tokenizer(path), shlex.quote(str(path))
    tokens = None if tokenizer is None else tokenizer.vocab_size
    digest = None if tokenizer is None else tokenizer.vocabulary_digest
    facts = {"tokenizer": "only transformers can read its files" if tokens is None else how_many(tokens, "token")}
    if digest is not None:
        facts["digest"] = digest
    uses = (
        Use("data.tokenizer", f"data.tokenizer={name}"),
        Use("model.language", f"model.language={name}", _NO_MODEL),
        Use("nemo-run chat", f"nemo-run chat {name}", _NO_MODEL),
    )
    details = {"vocabulary": {"rows": None, "rows_of_words": None, "tokens": tokens, "digest": digest}}
    return StoredModel(path, "tokenizer", "a tokenizer alone, without a model", facts, details, (), {}, uses)
