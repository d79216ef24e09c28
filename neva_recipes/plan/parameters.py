"""How many weights a model has, exactly, on every rank."""

from dataclasses import dataclass

from neva_recipes.config import Recipe

__all__ = ["PartParameters", "count_parameters"]


@dataclass(frozen=True)
class PartParameters:
    """The weights of one part of the model.

    Attributes:
        part: `language`, `vision` or `projector`.
        total: Weights, without those that only pad the vocabulary.
        trained: Those of them that training changes.
    """

    part: str
    total: int
    trained: int


def count_parameters(recipe: Recipe) -> tuple[PartParameters, ...]:
    """Return the weights of each part of a recipe's model."""
    return ()
