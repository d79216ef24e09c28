"""What the built-in recipe functions share: the choice of a size, the root, and the laptop scale."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from neva_recipes.config import (
    CheckpointConfig,
    Draft,
    LlavaDataConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    Recipe,
    RecipeError,
    TextDataConfig,
    TrainerConfig,
    config,
    suggest,
)

if TYPE_CHECKING:
    from neva_recipes.plan.rates import Rates

R = TypeVar("R", bound=Recipe)

__all__ = ["assemble", "check_size", "rates_of", "recompute_every_layer", "scale_to_laptop", "split_over_node"]


def check_size(recipe_name: str, size: str, sizes: Iterable[str]) -> None:
    """Raise `RecipeError` unless a recipe comes in a size."""
    sizes = list(sizes)
    if size not in sizes:
        raise RecipeError(f"{recipe_name} size={size!r}: expected one of {', '.join(sizes)}{suggest(str(size), sizes)}")


def assemble(
    cls: type[R],
    name: str,
    model: Draft[ModelConfig],
    data: Draft[LlavaDataConfig] | Draft[TextDataConfig],
    optim: Draft[OptimConfig],
    max_steps: int,
) -> Draft[R]:
    """Return a recipe of these branches; the others get their defaults and a checkpoint every 500 steps."""
    return config(
        cls,
        name=name,
        model=model,
        data=data,
        parallel=config(ParallelConfig),
        precision=config(PrecisionConfig),
        optim=optim,
        trainer=config(TrainerConfig, max_steps=max_steps),
        checkpoint=config(CheckpointConfig, every_n_train_steps=500),
        logging=config(LoggingConfig),
    )


def rates_of(name: str) -> "Rates":
    """Return the learning rates of a built-in recipe."""
    from neva_recipes.plan.rates import RATES  # a list of recipes needs no plan

    return RATES[name]


def recompute_every_layer(recipe: Draft[Recipe]) -> None:
    """Keep one hidden state per layer in the forward pass and recompute the rest."""
    recipe.model.recompute_granularity = "full"
    recipe.model.recompute_method = "uniform"
    recipe.model.recompute_num_layers = 1


def split_over_node(recipe: Draft[Recipe], tensor_model_parallel_size: int, micro_batch_size: int) -> None:
    """Lay a recipe out over one machine of eight GPUs.

    With tensor parallelism goes sequence parallelism: the same traffic, and norms and residuals are not kept on every
    GPU. What is left is data parallelism.
    """
    recipe.trainer.devices = 8
    recipe.parallel.tensor_model_parallel_size = tensor_model_parallel_size
    recipe.parallel.sequence_parallel = tensor_model_parallel_size > 1
    recipe.data.micro_batch_size = micro_batch_size
    recipe.data.num_workers = 4


def scale_to_laptop(recipe: Draft[Recipe], lr: float, max_steps: int) -> None:
    """Make a recipe of a tiny model run in minutes in one process without a GPU: fp32, short sequences, batch 64."""
    recipe.precision.precision = "fp32"
    recipe.data.sequence_length = 512
    recipe.data.micro_batch_size = 32
    recipe.data.global_batch_size = 64
    recipe.data.num_workers = 0
    recipe.optim.lr = lr
    recipe.optim.min_lr = 0.0
    recipe.trainer.max_steps = max_steps
