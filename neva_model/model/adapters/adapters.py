"""The adapters of the language model and of the vision tower."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from transformers import PreTrainedModel

from neva_model.model.adapters.adapter import Adapter
from neva_model.model.adapters.linear import AdaptedLinear
from neva_model.model.adapters.quantized import weight_of
from neva_model.model.initialization import name_seed
from neva_model.model.language import LanguageModel
from neva_model.model.vision import layers_that_run, sum_over_tensor_parallel_ranks
from neva_recipes.config import LanguageConfig, LoraConfig, ModelConfig, VisionConfig
from neva_recipes.families import (
    AdapterSite,
    Layout,
    adapter_sites,
    language_sites,
    vision_family,
    vision_sites,
)

__all__ = ["Adapters", "adapt_language", "adapt_tower", "kept_shards"]


class Adapters(torch.nn.Module):
    """The adapters of a part of the model on this rank.

    Their names are those of Hugging Face's modules, so a checkpoint of adapters does not depend on how Megatron-Core
    fuses or divides the layers.
    """

    def __init__(self, lora: LoraConfig, *, ranks: int, sequence_parallel: bool) -> None:
        """Begin without any.

        Args:
            lora: Their settings.
            ranks: Number of tensor-parallel ranks that share the layers.
            sequence_parallel: Whether each of them holds its own positions of the sequence between layers.
        """
        super().__init__()
        self._lora, self._ranks, self._sequence_parallel = lora, ranks, sequence_parallel
        self._linears: list[tuple[torch.nn.Module, AdaptedLinear]] = []

    def adapt(self, layer: int, linear: torch.nn.Module, sites: Sequence[AdapterSite], *, groups: int = 1) -> None:
        """Put adapters beside a linear layer, where the settings want any.

        Args:
            layer: The layer of the model that it is in, counted over the whole model from 0.
            linear: The linear layer.
            sites: Its parts, in the order in which it holds them.
            groups: Number of groups of queries on this rank.
        """
        wanted = adapter_sites(self._lora, sites)
        if not wanted or not self._lora.covers(layer):
            return
        made = {site: self._adapter(layer, site) for site in wanted}
        ranks = 1 if sites[0].layout in (Layout.COLUMNS, Layout.WHOLE) else self._ranks
        adapted = AdaptedLinear(linear, sites, [made.get(site) for site in sites], ranks=ranks, groups=groups)
        self._linears.append((linear, adapted))

    def _adapter(self, layer: int, site: AdapterSite) -> Adapter:
        adapter = Adapter(site, self._lora, ranks=self._ranks, sequence_parallel=self._sequence_parallel)
        module: torch.nn.Module = self
        path = f"layers.{layer}.{site.module}".split(".")
        for name in path[:-1]:
            if name not in module._modules:
                module.add_module(name, torch.nn.Module())
            module = module.get_submodule(name)
        module.add_module(path[-1], adapter)
        return adapter

    def items(self) -> Iterator[tuple[str, Adapter]]:
        """Yield every adapter and its name: `layers.3.self_attn.q_proj`."""
        for name, module in self.named_modules():
            if isinstance(module, Adapter):
                yield name, module

    def by_layer(self) -> Iterator[tuple[int, Adapter]]:
        """Yield every adapter and the layer that it is in, counted over the whole model from 0."""
        for name, adapter in self.items():
            yield int(name.split(".")[1]), adapter

    def initialize(self, seed: int, part: str) -> None:
        """Draw the adapters as they begin, which change nothing yet; the result does not depend on the layout.

        Args:
            seed: The seed of the recipe.
            part: The part of the model that they belong to.
        """
        rank = parallel_state.get_tensor_model_parallel_rank()
        for name, adapter in self.items():
            generator = torch.Generator(adapter.a.device).manual_seed(name_seed(seed, f"{part}_adapters.{name}"))
            adapter.initialize(generator, rank)
        self.initialize_lengths()

    def initialize_lengths(self) -> None:
        """Set DoRA's lengths, once the weights beside them are there."""
        for linear, adapted in self._linears:
            adapted.initialize_lengths(weight_of(linear))

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: tuple[tuple[int, int, int], ...] = (),
        metadata: dict[str, object] | None = None,
    ) -> ShardedStateDict:
        """Return the shards of all adapters."""
        cut = {f"{name}.{own}": axis for name, adapter in self.items() for own, axis in adapter.cut}
        state = self.state_dict(prefix="", keep_vars=True)
        shards: ShardedStateDict = make_sharded_tensors_for_checkpoint(state, prefix, cut, sharded_offsets)
        return shards


def adapt_language(model: LanguageModel, language: LanguageConfig) -> Adapters | None:
    """Put adapters beside the layers of a pipeline stage of a language model, as its recipe says; `None` for none.

    Their values are not set yet.
    """
    if language.lora is None:
        return None
    ranks = model.config.tensor_model_parallel_size
    adapters = Adapters(language.lora, ranks=ranks, sequence_parallel=model.config.sequence_parallel)
    sites = language_sites(language)
    for layer in model.decoder.layers:
        for core, parts in itertools.groupby(sites, key=lambda site: site.core):
            linear = layer.get_submodule(core)
            adapters.adapt(layer.layer_number - 1, linear, list(parts), groups=language.num_query_groups // ranks)
    return adapters


def adapt_tower(tower: PreTrainedModel, vision: VisionConfig) -> Adapters | None:
    """Put adapters beside the layers of a vision tower that run, as its recipe says; `None` for none.

    Their values are not set yet. As those of a trained tower, their gradients are summed over the tensor-parallel
    ranks.
    """
    if vision.lora is None:
        return None
    family = vision_family(vision)
    adapters = Adapters(vision.lora, ranks=1, sequence_parallel=False)
    for number, layer in enumerate(layers_that_run(tower, vision)):
        modules = {
            family.published_name(f"{name}.").removesuffix("."): module for name, module in layer.named_modules()
        }
        for site in vision_sites(vision):
            adapters.adapt(number, modules[site.module], [site])
    if parallel_state.get_tensor_model_parallel_world_size() > 1:
        for parameter in adapters.parameters():
            parameter.register_hook(sum_over_tensor_parallel_ranks)
    return adapters


def kept_shards(shards: ShardedStateDict, config: ModelConfig) -> ShardedStateDict:
    """Return the shards that a checkpoint holds: all, or only those of parts that are trained.

    Args:
        shards: All shards of the model.
        config: The model of its recipe.
    """
    if not config.is_saved_in_part:
        return shards
    parts = {"language.": config.language, "vision.": config.vision, "projector.": config.projector}
    fixed = tuple(prefix for prefix, part in parts.items() if part is not None and not part.trains_weights)
    return {name: shard for name, shard in shards.items() if not shard.key.startswith(fixed)}
