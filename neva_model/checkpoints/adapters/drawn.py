"""Weights that no file holds, since a recipe draws them from its seed."""

from functools import cached_property

import torch

from neva_model.checkpoints.weights.names import LANGUAGE, PROJECTOR, VISION
from neva_recipes.config import Recipe
from neva_recipes.families import vision_family

__all__ = ["DrawnWeights"]


class DrawnWeights:
    """The initial weights of a recipe's model; they are drawn when the first one is read, all at once."""

    def __init__(self, recipe: Recipe) -> None:
        """Store the recipe; nothing is drawn yet."""
        self._recipe = recipe

    @cached_property
    def _weights(self) -> dict[str, torch.Tensor]:
        from neva_model.startup import prepare_process

        prepare_process()
        from neva_model.checkpoints.load import divided, initialize_single_process, own_share
        from neva_model.model import global_parameters
        from neva_recipes.config import ParallelConfig

        initialize_single_process()
        model = own_share(divided(self._recipe, ParallelConfig()))
        language = self._recipe.model.language
        weights = {f"{LANGUAGE}{name}": values.detach() for name, values in global_parameters(model.language)}
        weights = {
            name: values[: language.vocab_size] if len(values) == model.language.vocab_size else values
            for name, values in weights.items()
        }
        if self._recipe.model.vision is not None and model.vision is not None and model.projector is not None:
            published = vision_family(self._recipe.model.vision).published_name
            weights |= {f"{VISION}{published(name)}": values for name, values in model.vision.state_dict().items()}
            weights |= {f"{PROJECTOR}{name}": values for name, values in model.projector.state_dict().items()}
        return weights

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a weight."""
        return self._weights[name].dtype

    def read(self, name: str) -> torch.Tensor:
        """Return a weight."""
        return self._weights[name]
