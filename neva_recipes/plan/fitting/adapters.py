"""Adapters that would make a recipe fit whose weights are too many to train."""

from collections.abc import Iterator

from neva_recipes.config import LoraConfig, Recipe
from neva_recipes.plan.findings import Remedy
from neva_recipes.plan.rates import ADAPTER_RATE

__all__ = ["with_adapters"]

_QUANTIZED: Remedy = {"model.language.quantize": "nf4"}


def with_adapters(recipe: Recipe) -> Iterator[Remedy]:
    """Yield the changes that leave fewer weights of the language model to train, or fewer bytes of them to hold.

    LoRA at the rank of LLaVA-1.5 comes first, then QLoRA; a recipe that has adapters can only be quantized.
    """
    language = recipe.model.language
    if recipe.precision.fp8 is not None or language.quantize is not None:
        return
    if language.trains_weights:
        adapters: Remedy = {"model.language.lora.rank": LoraConfig().rank, "optim.lr": ADAPTER_RATE}
        yield adapters
        yield {**adapters, **_QUANTIZED}
    elif language.lora is not None:
        yield _QUANTIZED
