"""Whether a tokenizer is the one that a checkpoint's embeddings were trained with."""

from pathlib import Path

from neva_model.checkpoints.information import CheckpointInformation, saved_recipe
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import CheckpointError, Recipe
from neva_recipes.plan.origins.checkpoints import other_vocabulary

__all__ = ["check_same_vocabulary"]


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
