"""The root of every recipe."""

from typing import TYPE_CHECKING

from neva_recipes.config.data import LlavaDataConfig, TextDataConfig
from neva_recipes.config.model import LlavaModelConfig, ModelConfig
from neva_recipes.config.training import (
    CheckpointConfig,
    LoggingConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    TrainerConfig,
)
from neva_recipes.config.values.node import ConfigNode, config_dataclass

__all__ = ["LlavaRecipe", "Recipe"]


@config_dataclass
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


if TYPE_CHECKING:

    class LlavaRecipe(Recipe):
        """A recipe for image-text conversations: to a checker its data have images, and its model has eyes.

        There is one class of recipe, and this is another name of it. A function that sets `data.image_folder` or
        `model.projector.freeze` of any `Recipe` would have to prove first that they are there.
        """

        model: LlavaModelConfig
        data: LlavaDataConfig
else:
    LlavaRecipe = Recipe
