"""Whether a tokenizer is the one that a checkpoint's embeddings were trained with."""

from pathlib import Path

from neva_model.checkpoints.information import CheckpointInformation, saved_recipe
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import CheckpointError, tokenizer_name

__all__ = ["check_same_vocabulary"]


def check_same_vocabulary(checkpoint: Path, information: CheckpointInformation, tokenizer: Tokenizer) -> None:
    """Raise `CheckpointError` if a tokenizer gives the rows of a checkpoint's embeddings to other tokens.

    Args:
        checkpoint: The checkpoint, for the message.
        information: What it says about itself.
        tokenizer: The tokenizer to be used with it.
    """
    if information.vocabulary_digest in (None, tokenizer.vocabulary_digest()):
        return
    own = tokenizer_name(saved_recipe(checkpoint))
    remedy = "it has changed since" if own == tokenizer.name else f"set data.tokenizer={own}"
    raise CheckpointError(f"{checkpoint}: was trained with another vocabulary than that of {tokenizer.name}: {remedy}")
