"""Rules on the precision."""

from collections.abc import Callable, Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.findings import Finding

__all__ = ["precision_rules"]

precision_rules: tuple[Callable[[Recipe], Iterator[Finding]], ...] = ()
