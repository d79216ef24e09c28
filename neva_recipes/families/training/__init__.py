"""What of a model can be trained: its weights by their names, and the linear layers that adapters stand beside."""

from neva_recipes.families.training.names import fits, rate_name, trained_names
from neva_recipes.families.training.sites import (
    AdapterSite,
    adapter_parameters,
    adapter_sites,
    adapters_of,
    language_sites,
    unknown_targets,
    vision_sites,
)

__all__ = [
    "AdapterSite",
    "adapter_parameters",
    "adapter_sites",
    "adapters_of",
    "fits",
    "language_sites",
    "rate_name",
    "trained_names",
    "unknown_targets",
    "vision_sites",
]
