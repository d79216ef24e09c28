"""Families of language models and of vision towers: all that the product knows about an architecture, declared.

Each family is one file. The plan, the model, import and export read it; none of them knows a family by name.
"""

from neva_recipes.families.language import LanguageFamily
from neva_recipes.families.registry import (
    families,
    image_length,
    language_families,
    language_family,
    vision_families,
    vision_family,
)
from neva_recipes.families.tensors import Layout, Weight
from neva_recipes.families.training import (
    AdapterSite,
    adapter_parameters,
    adapter_sites,
    adapters_of,
    fits,
    language_sites,
    rate_name,
    trained_names,
    unknown_targets,
    vision_sites,
)
from neva_recipes.families.vision import VisionFamily, layers_run, patches_of

__all__ = [
    "AdapterSite",
    "LanguageFamily",
    "Layout",
    "VisionFamily",
    "Weight",
    "adapter_parameters",
    "adapter_sites",
    "adapters_of",
    "families",
    "fits",
    "image_length",
    "language_families",
    "language_family",
    "language_sites",
    "layers_run",
    "patches_of",
    "rate_name",
    "trained_names",
    "unknown_targets",
    "vision_families",
    "vision_family",
    "vision_sites",
]
