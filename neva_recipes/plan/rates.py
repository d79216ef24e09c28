"""The learning rates of the built-in recipes, and the rates they are compared with."""

from typing import NamedTuple

from neva_recipes.config import Recipe
from neva_recipes.plan.cost.parameters import is_small

__all__ = ["ADAPTER_RATE", "RATES", "Rates", "highest_published_rate", "own_rate"]


class Rates(NamedTuple):
    """The peak learning rates of a built-in recipe.

    Attributes:
        published: The rate of the training scripts that the recipe follows.
        tiny: The rate of a small model, such as the size for a laptop, which starts from random weights.
    """

    published: float
    tiny: float


ADAPTER_RATE = 2e-4
"""Learning rate of adapters in LLaVA-1.5's finetune_lora.sh, ten times that of the weights."""

RATES: dict[str, Rates] = {
    "gpt.pretrain": Rates(3e-4, tiny=1e-3),
    "gpt.continue_pretrain": Rates(1.2e-4, tiny=1e-3),
    "llava.pretrain": Rates(1e-3, tiny=3e-3),
    "llava.finetune": Rates(2e-5, tiny=1e-3),
    "llava.lora": Rates(ADAPTER_RATE, tiny=3e-3),
    "llava.qlora": Rates(ADAPTER_RATE, tiny=3e-3),
    "neva.pretrain": Rates(1e-3, tiny=3e-3),
    "neva.finetune": Rates(2e-5, tiny=1e-3),
}
"""Keyed by the name of the recipe. NeVA has no tiny size; its `tiny` rate is that of LLaVA."""


_OF_WEIGHTS = {"llava.lora": "llava.finetune", "llava.qlora": "llava.finetune"}
"""The recipe that trains the weights beside which each recipe trains adapters."""


def highest_published_rate() -> float:
    """Return the highest learning rate of the published recipes, that of a projector trained alone."""
    return max(rates.published for rates in RATES.values())


def own_rate(recipe: Recipe) -> float | None:
    """Return the learning rate that a built-in recipe takes for a model of this size; `None` for any other recipe.

    With a frozen language model it is at least the rate of a projector trained alone. That of a recipe of adapters
    which has none is that of the weights.
    """
    has_adapters = recipe.model.language.lora is not None
    if (rates := RATES.get(recipe.name if has_adapters else _OF_WEIGHTS.get(recipe.name, recipe.name))) is None:
        return None
    own = rates.tiny if is_small(recipe) else rates.published
    if has_adapters:
        return max(own, ADAPTER_RATE)
    return max(own, highest_published_rate()) if recipe.model.language.freeze else own
