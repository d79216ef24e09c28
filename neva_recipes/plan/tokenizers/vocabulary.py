"""The vocabulary size of a language model whose recipe leaves it to the tokenizer."""

from pathlib import Path

from neva_recipes.config import CheckpointError, DataError, expand_path, path_is
from neva_recipes.plan.huggingface import is_huggingface, kept_directory, vocabulary_rows
from neva_recipes.plan.tokenizers.tokenizer import kept_tokenizer

__all__ = ["vocabulary_size"]


def vocabulary_size(tokenizer: str, language: str | None, *, use_im_start_end: bool) -> int | None:
    """Return the number of tokens that a model must have; `None` if the files for it are not here or unreadable.

    Args:
        tokenizer: Where the tokenizer comes from.
        language: Where the weights of the language model come from; `None` for random ones.
        use_im_start_end: Whether two tokens mark the borders of images.
    """
    path = expand_path(tokenizer)
    try:
        found = kept_tokenizer(path, use_im_start_end=use_im_start_end) if path_is(path) else None
        if found is None:
            return None
        if language is None:
            return found.vocab_size
        directory = expand_path(language)
        if not path_is(directory, Path.is_dir) or not is_huggingface(directory):
            return None
        configuration = kept_directory(directory).configuration
    except (DataError, CheckpointError):
        return None
    rows = vocabulary_rows(configuration) if configuration is not None else None
    return None if rows is None else rows.nearest(found.vocab_size, use_im_start_end=use_im_start_end)
