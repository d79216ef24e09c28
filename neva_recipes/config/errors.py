"""The exceptions a user can cause, each carrying one line that says what is wrong and what to do."""

import os

from neva_recipes.secrets import mask, secret_values

__all__ = ["CheckpointError", "DataError", "RecipeError", "RunError", "UserError"]


class UserError(ValueError):
    """A mistake in the user's input; the command prints its text as one line and exits with code 2.

    Wherever the text ends up, it holds no secret: what looks like one, or is the value of a secret environment
    variable, is masked.
    """

    def __init__(self, message: str) -> None:
        super().__init__(mask(message, secret_values(os.environ)))


class RecipeError(UserError):
    """A field of a recipe or an executor that is misspelt, of the wrong type, out of range, or at odds with another."""


class DataError(UserError):
    """A data file, image or tokenizer that cannot be used."""


class CheckpointError(UserError):
    """A checkpoint or weight directory that is missing, incomplete, or of another shape than the model."""


class RunError(UserError):
    """A run directory or job that cannot be created, found, or used as asked."""
