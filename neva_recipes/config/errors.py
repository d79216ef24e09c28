"""The exceptions that a user can cause; each has one line that says what is wrong and what to do."""

import os

from neva_recipes.secrets import mask, secret_values

__all__ = [
    "CheckpointError",
    "DataError",
    "NoSuchFieldError",
    "RecipeError",
    "RunError",
    "UserError",
    "reading_problem",
]


class UserError(ValueError):
    """A mistake in the user's input; the command prints its text as one line and exits with code 2.

    The text never holds a secret: anything that looks like one, or is the value of a secret environment variable, is
    masked.
    """

    def __init__(self, message: str) -> None:
        super().__init__(mask(message, secret_values(os.environ)))


class RecipeError(UserError):
    """A field of a recipe or an executor that is misspelt, of the wrong type, out of range, or at odds with another."""


class NoSuchFieldError(RecipeError):
    """A field that does not exist."""


class DataError(UserError):
    """A data file, image or tokenizer that cannot be used."""


class CheckpointError(UserError):
    """A checkpoint or weight directory that is missing, incomplete, or of another shape than the model."""


class RunError(UserError):
    """A run directory or job that cannot be created, found, or used as asked."""


def reading_problem(error: OSError | ValueError) -> str:
    """Return what is wrong with a text file that a user has named, as text to follow its path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnicodeDecodeError):
        return f"cannot be read: byte {error.start} is not UTF-8 text"
    return f"cannot be read: {error.strerror if isinstance(error, OSError) else error}"
