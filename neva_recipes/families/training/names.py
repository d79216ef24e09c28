"""The names of the weights of a model that are trained, as patterns of learning rates mean them."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from neva_recipes.config import ModelConfig
from neva_recipes.families.registry import language_family, vision_family
from neva_recipes.families.training.sites import adapters_of
from neva_recipes.families.vision import layers_run

__all__ = ["fits", "rate_name", "trained_names"]

_CORE_PREFIX = "language.decoder."


def rate_name(name: str) -> str:
    """Return the name of a weight in patterns: that of its part, and without what differs by how it is computed.

    Args:
        name: The name in the model, with layers counted over the whole model: `language.decoder.layers.3.mlp...`,
            `language_adapters.layers.3.self_attn...`.
    """
    if name.startswith(_CORE_PREFIX):
        return f"language.{name.removeprefix(_CORE_PREFIX)}"
    return name.replace("_adapters.", ".", 1)


def fits(pattern: str, name: str) -> bool:
    """Return whether a pattern means a weight: its whole name, or what it begins with up to a dot."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def trained_names(model: ModelConfig) -> Iterator[str]:
    """Yield the names of the weights of a model that are trained; of adapters the names of their linear layers."""
    language, vision, projector = model.language, model.vision, model.projector
    if language.trains_weights:
        family = language_family(language)
        yield from (rate_name(f"language.{weight.core}") for weight in family.body)
        if not language.share_embeddings_and_output_weights:
            yield f"language.{family.head.core}"
        for number in range(language.num_layers):
            yield from (f"language.layers.{number}.{weight.core}" for weight in family.layer)
    if vision is not None and vision.trains_weights:
        tower = vision_family(vision)
        yield from (f"vision.{name}" for name in tower.before)
        for number in range(layers_run(vision)):
            yield from (f"vision.{tower.layers}.{number}.{name}" for name in tower.layer)
    if projector is not None and projector.trains_weights:
        for number in range(projector.num_layers):
            yield from (f"projector.{2 * number}.{kind}" for kind in ("weight", "bias"))
    for part in ("language", "vision"):
        yield from (f"{part}.layers.{layer}.{site.module}" for layer, site in adapters_of(model, part))
