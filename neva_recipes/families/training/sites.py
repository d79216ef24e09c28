"""The linear layers that adapters can stand beside, by the names that they have in Hugging Face's models."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from neva_recipes.config import LanguageConfig, LoraConfig, ModelConfig, VisionConfig
from neva_recipes.families.language import sizes_of
from neva_recipes.families.registry import language_family, vision_family
from neva_recipes.families.tensors import Layout, Weight
from neva_recipes.families.vision import layers_run

__all__ = [
    "AdapterSite",
    "adapter_parameters",
    "adapter_sites",
    "adapters_of",
    "language_sites",
    "unknown_targets",
    "vision_sites",
]

_WEIGHT = ".weight"


class AdapterSite(NamedTuple):
    """A linear layer of a transformer layer.

    Attributes:
        module: Its name in Hugging Face's model, below the layer: `self_attn.q_proj`.
        core: The module that computes it here, below the layer; several sites may be parts of one.
        layout: How tensor-parallel ranks share the weight of that module.
        rows: Its outputs; more than one number if other parts of the module lie between them here.
        columns: Its inputs.
    """

    module: str
    core: str
    layout: Layout
    rows: tuple[int, ...]
    columns: int

    def share(self, ranks: int) -> tuple[int, int]:
        """Return the inputs and the outputs of an adapter's matrices on one of some tensor-parallel ranks."""
        columns = self.columns // (ranks if self.layout is Layout.COLUMNS else 1)
        rows = sum(self.rows) // (1 if self.layout in (Layout.COLUMNS, Layout.WHOLE) else ranks)
        return columns, rows

    def is_named(self, target: str) -> bool:
        """Return whether a name of `target_modules` means it, as in PEFT: its whole name, or the end of it."""
        return f".{self.module}".endswith(f".{target}")


def language_sites(language: LanguageConfig) -> tuple[AdapterSite, ...]:
    """Return the linear layers of one layer of a language model, in the order in which the modules here hold them."""
    family, sizes = language_family(language), sizes_of(language)
    return tuple(site for weight in family.export.layer if weight.is_matrix for site in _sites_of_weight(weight, sizes))


def _sites_of_weight(weight: Weight, sizes: dict[str, int]) -> Iterator[AdapterSite]:
    for tensor, shape in weight.shapes(sizes).items():
        rows = tuple(part.place(sizes)[1] for part in weight.parts if part.tensor == tensor)
        columns = shape[0] if weight.transposed else shape[1]
        yield AdapterSite(tensor.removesuffix(_WEIGHT), weight.core.removesuffix(_WEIGHT), weight.layout, rows, columns)


def vision_sites(vision: VisionConfig) -> tuple[AdapterSite, ...]:
    """Return the linear layers of one layer of a vision tower, which every tensor-parallel rank has whole."""
    family = vision_family(vision)
    shapes = family.shapes(family.layer, family.sizes(vision))
    return tuple(
        AdapterSite(name, name, Layout.WHOLE, (shape[0],), shape[1])
        for name, shape in ((tensor.removesuffix(_WEIGHT), shape) for tensor, shape in shapes.items())
        if len(shape) == 2
    )


def adapter_sites(lora: LoraConfig, sites: Iterable[AdapterSite]) -> tuple[AdapterSite, ...]:
    """Return the linear layers of a layer that get adapters."""
    targets = lora.target_modules
    return tuple(site for site in sites if targets is None or any(map(site.is_named, targets)))


def unknown_targets(lora: LoraConfig, sites: Iterable[AdapterSite]) -> list[str]:
    """Return the names of `target_modules` that no linear layer has."""
    return [target for target in lora.target_modules or () if not any(site.is_named(target) for site in sites)]


def adapters_of(model: ModelConfig, part: str) -> Iterator[tuple[int, AdapterSite]]:
    """Yield the layer and the linear layer of every adapter of a part of a model, which may have none.

    Layers of a vision tower that do not run get none.

    Args:
        model: The model.
        part: `language` or `vision`.
    """
    config = model.language if part == "language" else model.vision
    if config is None or config.lora is None:
        return
    if isinstance(config, LanguageConfig):
        layers, sites = config.num_layers, language_sites(config)
    else:
        layers, sites = layers_run(config), vision_sites(config)
    for layer in filter(config.lora.covers, range(layers)):
        for site in adapter_sites(config.lora, sites):
            yield layer, site


def adapter_parameters(lora: LoraConfig, site: AdapterSite, ranks: int = 1) -> int:
    """Return how many weights an adapter has on one of the tensor-parallel ranks.

    Args:
        lora: Its settings.
        site: Its linear layer.
        ranks: Number of tensor-parallel ranks.
    """
    columns, rows = site.share(ranks)
    return lora.rank * (columns + rows) + rows * (lora.kind == "dora")
