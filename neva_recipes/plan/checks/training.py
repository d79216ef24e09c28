"""Rules on the training."""

from collections.abc import Callable, Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.findings import Finding

__all__ = ["training_rules"]

training_rules: tuple[Callable[[Recipe], Iterator[Finding]], ...] = ()
