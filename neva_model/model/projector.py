"""The projector: maps vision features to the language model's width."""

import torch

from neva_recipes.config import ProjectorConfig

__all__ = ["build_projector"]


def build_projector(projector: ProjectorConfig, vision_hidden_size: int, hidden_size: int) -> torch.nn.Sequential:
    """Return N linear layers with (exact) GELU between them; their names `0`, `2`, ... are those of LLaVA.

    Args:
        projector: Configuration of the projector.
        vision_hidden_size: Width of the features.
        hidden_size: Width of the language model, and of the layers in between.
    """
    layers: list[torch.nn.Module] = [torch.nn.Linear(vision_hidden_size, hidden_size)]
    for _ in range(projector.num_layers - 1):
        layers += [torch.nn.GELU(), torch.nn.Linear(hidden_size, hidden_size)]
    return torch.nn.Sequential(*layers)
