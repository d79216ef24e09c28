"""How long the samples of a recipe are: from its data file where there is one, else assumed."""

from dataclasses import dataclass

from neva_recipes.config import Recipe

__all__ = ["Lengths", "sequence_lengths"]


@dataclass(frozen=True)
class Lengths:
    """Lengths of samples, in tokens.

    Attributes:
        tokens: Mean tokens of a sample, image tokens included, padding not.
        padded: Mean tokens of its row in a microbatch, padding included.
        images: Mean images of a sample.
        samples: Samples of the whole file; none where that is not known.
        truncated: Share of samples cut at data.sequence_length.
        source: How this is known, for people.
        measured: Whether it comes from the data file.
    """

    tokens: float
    padded: float
    images: float
    samples: int | None
    truncated: float
    source: str
    measured: bool


def sequence_lengths(recipe: Recipe) -> Lengths:
    """Return the lengths of a recipe's samples."""
    length = float(recipe.data.sequence_length)
    return Lengths(length, length, float(recipe.model.vision is not None), None, 0.0, "assumed full", False)
