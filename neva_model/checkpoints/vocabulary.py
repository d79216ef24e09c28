"""Whether a tokenizer is the one that a checkpoint's embeddings were trained with."""

import dataclasses
from pathlib import Path

from neva_model.checkpoints.information import CheckpointInformation, saved_recipe
from neva_model.tokenizers import Tokenizer, load_recipe_tokenizer
from neva_recipes.config import CheckpointError, DataError, Recipe
from neva_recipes.plan.origins.checkpoints import other_vocabulary

__all__ = ["check_same_vocabulary", "recipe_with_tokenizer"]


def recipe_with_tokenizer(
    checkpoint: Path, information: CheckpointInformation, tokenizer: str | None
) -> tuple[Recipe, Tokenizer | None]:
    """Return the recipe of a checkpoint, and its tokenizer if the checkpoint has something to check it against.

    Args:
        checkpoint: The checkpoint.
        information: Its information.
        tokenizer: Where its tokenizer is now; `None` means where it was in training.

    Raises:
        CheckpointError: The tokenizer has changed.
        DataError: The tokenizer cannot be loaded.
    """
    saved = saved_recipe(checkpoint)
    if tokenizer is not None:
        saved = dataclasses.replace(saved, data=dataclasses.replace(saved.data, tokenizer=tokenizer))
    if information.vocabulary_digest is None:
        return saved, None
    try:
        words = load_recipe_tokenizer(saved)
    except DataError as error:
        if tokenizer is not None:
            raise
        raise DataError(
            f"{error}; data.tokenizer of {checkpoint} names it: --tokenizer PATH says where it is"
        ) from None
    check_same_vocabulary(checkpoint, information, saved, words, by_flag=True)
    return saved, words


def check_same_vocabulary(
    checkpoint: Path,
    information: CheckpointInformation,
    recipe: Recipe,
    tokenizer: Tokenizer,
    *,
    by_flag: bool = False,
) -> None:
    """Raise `CheckpointError` if a checkpoint's embeddings were trained with a vocabulary other than the tokenizer's.

    Args:
        checkpoint: The checkpoint.
        information: The checkpoint's information.
        recipe: The recipe that will use it.
        tokenizer: The recipe's tokenizer.
        by_flag: Whether the command takes a tokenizer by its flag `--tokenizer`, and no fields.
    """
    digests = information.vocabulary_digest, tokenizer.vocabulary_digest()
    if problem := other_vocabulary(*digests, saved_recipe(checkpoint), recipe):
        raise CheckpointError(f"{checkpoint}: {problem.line(by_flag=by_flag)}")
