"""The root of every recipe."""

from dataclasses import dataclass

from neva_recipes.config._node import ConfigNode
from neva_recipes.config.data import LlavaDataConfig, TextDataConfig
from neva_recipes.config.model import ModelConfig
from neva_recipes.config.training import (
    CheckpointConfig,
    LoggingConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    TrainerConfig,
)

__all__ = ["Recipe"]


@dataclass(kw_only=True, frozen=True)
class Recipe(ConfigNode):
    """Everything one training run is made of."""

    name: str
    """Name of the recipe; runs are named after it."""
    model: ModelConfig
    """The model."""
    data: LlavaDataConfig | TextDataConfig
    """The data."""
    parallel: ParallelConfig
    """The split over GPUs."""
    precision: PrecisionConfig
    """Number formats."""
    optim: OptimConfig
    """Optimizer and schedule."""
    trainer: TrainerConfig
    """Length and extras of the training loop."""
    checkpoint: CheckpointConfig
    """Checkpoints."""
    logging: LoggingConfig
    """Metrics."""
