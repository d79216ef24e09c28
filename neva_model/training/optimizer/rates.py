"""Learning rates of single weights, as groups of Megatron's optimizer."""

from collections.abc import Iterator
from typing import Any

import torch
from megatron.core.optimizer import OptimizerConfig, get_standard_config_overrides
from megatron.core.optimizer.optimizer_config import ParamKey, ParamPredicate
from megatron.core.utils import unwrap_model

from neva_model.model import NevaModel, global_parameters
from neva_recipes.config import OptimConfig
from neva_recipes.families import fits, rate_name, vision_family

__all__ = ["has_own_rate", "rate_overrides", "scaled_rate"]


def rate_overrides(chunks: list[Any], config: OptimizerConfig, optim: OptimConfig) -> dict[Any, Any] | None:
    """Return what Megatron's optimizer is to do otherwise with some weights; `None` for nothing but its defaults.

    Args:
        chunks: The chunks of the model on this rank, wrapped or not.
        config: The configuration of Megatron's optimizer.
        optim: The optimizer of the recipe.
    """
    if not optim.lr_of:
        return None
    rates: dict[int, float] = {}
    for name, parameter in (pair for chunk in unwrap_model(chunks) for pair in _named(chunk)):
        for pattern, rate in optim.lr_of.items():
            if fits(pattern, name):
                rates[id(parameter)] = rate
    overrides: dict[Any, Any] = get_standard_config_overrides(config=config)
    for rate in dict.fromkeys(optim.lr_of.values()):
        # Each rank makes the same groups, though it may hold no weight of some.
        chosen = ParamPredicate(f"rate {rate:g}", lambda parameter, rate=rate: rates.get(id(parameter)) == rate)
        # Core finds a group of a checkpoint by the last two, some releases by the first too: they tell groups apart.
        overrides[ParamKey(predicate=chosen)] = {"max_lr": rate, "lr_mult": rate, "is_decoupled_lr": True}
    return overrides


def _named(chunk: NevaModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield the weights of a chunk under the names that patterns mean."""
    for name, parameter in global_parameters(chunk.language):
        yield rate_name(f"language.{name}"), parameter
    for name, parameter in chunk.named_parameters():
        if name.startswith("vision.") and chunk.model_config.vision is not None:
            yield vision_family(chunk.model_config.vision).published_name(name), parameter
        elif not name.startswith("language."):
            yield rate_name(name), parameter


def scaled_rate(group: dict[str, Any], rate: float, optim: OptimConfig) -> float:
    """Return the learning rate of a group of weights, whose schedule is that of all others.

    Args:
        group: The group of Megatron's optimizer.
        rate: The learning rate of the others in this step.
        optim: The optimizer of the recipe.
    """
    return rate * float(group["max_lr"]) / optim.lr if has_own_rate(group) else rate


def has_own_rate(group: dict[str, Any]) -> bool:
    """Return whether a group of Megatron's optimizer has a learning rate of its own."""
    return not group.get("default_config", True)
