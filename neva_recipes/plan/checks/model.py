"""Rules on the model."""

from collections.abc import Callable, Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.findings import Finding

__all__ = ["model_rules"]

model_rules: tuple[Callable[[Recipe], Iterator[Finding]], ...] = ()
