"""The tokenizer in the Hugging Face directory of a language model, beside the one that the recipe names."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError, Recipe
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.findings import warning
from neva_recipes.plan.huggingface import Configuration, Directory, VocabularyRows, vocabulary_rows
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, kept_tokenizer, known_tokenizer

__all__ = ["check_own_tokenizer", "has_other_tokens"]


def check_own_tokenizer(recipe: Recipe, configuration: Configuration, path: Path) -> Iterator[Found]:
    """Yield a warning if ids of the recipe's tokenizer mean other tokens than in the one beside the weights.

    Args:
        recipe: The recipe.
        configuration: The configuration of the language model.
        path: Its directory.
    """
    compared = _compared(recipe, configuration, path)
    if compared is None or not compared.differing:
        return
    count = f"{compared.differing} of the {compared.shared} ids that both have"
    message = f"the tokenizer there has other tokens for {count}"
    tokenizer, fields = {"data.tokenizer": recipe.model.language.source}, ("model.language.from_pretrained",)
    marks = recipe.model.use_im_start_end
    size = {"model.language.vocab_size": compared.rows.nearest(compared.own.vocab_size, use_im_start_end=marks)}
    yield found(
        warning("other-vocabulary", message, recipe, *fields, "data.tokenizer"),
        [tokenizer, tokenizer | size],
    )


def has_other_tokens(recipe: Recipe, directory: Directory | None) -> bool:
    """Return whether the directory of the language model has a tokenizer of its own that has other tokens.

    A tokenizer that has more tokens at the end is not another one, nor is one that cannot be read here.

    Args:
        recipe: The recipe.
        directory: The directory of its language model; `None` if it is not here.
    """
    if directory is None or directory.configuration is None:
        return False
    compared = _compared(recipe, directory.configuration, directory.path)
    return compared is not None and compared.differing > 0


class _Compared(NamedTuple):
    """A recipe's tokenizer, compared with the one beside the weights.

    Attributes:
        rows: The rows of the embedding there.
        own: The tokenizer there.
        shared: How many ids of words both tokenizers have.
        differing: How many of these mean another token.
    """

    rows: VocabularyRows
    own: LocalTokenizer
    shared: int
    differing: int


def _compared(recipe: Recipe, configuration: Configuration, path: Path) -> _Compared | None:
    """Return how the two tokenizers compare; `None` if the recipe names none or one of them cannot be read here."""
    rows = vocabulary_rows(configuration)
    own = _own(path) if recipe.data.tokenizer is not None and rows is not None else None
    here = known_tokenizer(recipe) if own is not None else None
    if own is None or here is None or rows is None:
        return None
    return _Compared(rows, own, *_counted(own, here, rows.text))


@lru_cache(maxsize=16)
def _counted(own: LocalTokenizer, here: LocalTokenizer, words: int) -> tuple[int, int]:
    """Return how many ids below `words` both tokenizers have, and how many of them mean another token."""
    there, ours = ({number: token for token, number in each.tokens.items()} for each in (own, here))
    # The rows behind those of words only serve transformers.
    shared = [number for number in there.keys() & ours.keys() if number < words]
    # A special token that takes the place of an unused one is no other word.
    renamed = ours.keys() & {here.tokens[token] for token in here.specials if token not in own.tokens}
    return len(shared), sum(there[number] != ours[number] and number not in renamed for number in shared)


def _own(path: Path) -> LocalTokenizer | None:
    try:
        return kept_tokenizer(path, use_im_start_end=False)
    except DataError:
        return None
