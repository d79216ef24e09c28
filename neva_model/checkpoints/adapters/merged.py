"""The weights of a model with adapters as those of a model without: each weight with what its adapters add."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch

from neva_model.checkpoints.adapters.drawn import DrawnWeights
from neva_model.checkpoints.adapters.source import CheckpointAdapters
from neva_model.checkpoints.base import with_base
from neva_model.checkpoints.information import CheckpointInformation, SavedAdapters, saved_recipe
from neva_model.checkpoints.weights import CheckpointWeights, Weights
from neva_model.checkpoints.weights.directory import part_of_directory
from neva_model.checkpoints.weights.names import LANGUAGE
from neva_model.model.adapters import QuantizedWeight
from neva_model.model.adapters.parts import join_parts
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import LoraConfig, Recipe
from neva_recipes.families import AdapterSite, adapter_sites, adapters_of, language_sites, vision_family, vision_sites
from neva_recipes.families.tensors import LAYER_PREFIX
from neva_recipes.plan.huggingface import is_huggingface, open_directory, vocabulary_rows
from neva_recipes.plan.origins.checkpoints import PARTS

__all__ = ["MergedWeights"]

_LAYERS = f"{LANGUAGE}{LAYER_PREFIX}"

_Part = Literal["language", "vision", "projector"]


class MergedWeights:
    """The weights of a checkpoint of adapters and of what they were trained beside, one at a time."""

    def __init__(
        self, checkpoint: Path, recipe: Recipe, information: CheckpointInformation, tokenizer: Tokenizer | None
    ) -> None:
        """Find the weights; nothing is read yet.

        Args:
            checkpoint: A complete checkpoint of a model with adapters.
            recipe: The recipe that it was saved with.
            information: Its record.
            tokenizer: The model's tokenizer, which may have tokens that the weights beside the adapters lack.

        Raises:
            CheckpointError: The weights beside the adapters are not there any more, or are others.
        """
        self._adapters = CheckpointAdapters(checkpoint, recipe) if recipe.model.has_adapters else None
        self._groups = recipe.model.language.num_query_groups
        based, drawn = with_base(recipe, SavedAdapters(checkpoint, information)), DrawnWeights(recipe)
        own = CheckpointWeights(checkpoint, recipe)
        self._parts: dict[str, Weights] = {}
        for part in PARTS:
            config = getattr(based.model, part)
            if config is None:
                continue
            if config.trains_weights:
                self._parts[part] = own
            else:
                self._parts[part] = drawn if config.source is None else _base(based, part, tokenizer)
        self._places = _places(recipe)
        # Adapters were trained beside what the 4 bits stand for.
        language = recipe.model.language
        self._quantized = None if language.quantize is None else language_sites(language)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a weight."""
        return self._parts[name.partition(".")[0]].dtype(name)

    def read(self, name: str) -> torch.Tensor:
        """Return a weight with what its adapters add.

        Raises:
            CheckpointError: A file is damaged.
        """
        part = name.partition(".")[0]
        weight = self._parts[part].read(name)
        if self._quantized is not None and name.startswith(_LAYERS):
            core = name.removeprefix(_LAYERS).partition(".")[2].removesuffix(".weight")
            if parts := [site for site in self._quantized if site.core == core]:
                weight = QuantizedWeight(weight, parts, groups=self._groups).weight()
        if name not in self._places:
            return weight
        layer, lora, sites = self._places[name]
        return self._merged(weight, part, layer, lora, sites)

    def _merged(
        self, weight: torch.Tensor, part: str, layer: int, lora: LoraConfig, sites: Sequence[AdapterSite]
    ) -> torch.Tensor:
        assert self._adapters is not None
        adapted = set(adapter_sites(lora, sites))
        added, lengths, whole = list[torch.Tensor](), list[torch.Tensor](), weight.float()
        for site in sites:
            if site not in adapted:
                added += [whole.new_zeros(size, whole.shape[1]) for size in site.rows]
                lengths += [whole.new_full((size,), torch.nan) for size in site.rows]
                continue
            values = self._adapters.read(part, layer, site)
            rows = list(site.rows)
            added += (values.b.float() @ values.a.float() * lora.scale).split(rows)
            lengths += values.lengths.float().split(rows) if values.lengths is not None else []
        layout, groups = sites[0].layout, self._groups
        whole = whole + join_parts([rows.T for rows in added], layout, groups).T
        if lora.kind == "dora":
            present, wanted = whole.norm(dim=1), join_parts(lengths, layout, groups)
            whole = whole * torch.where(wanted.isnan(), 1.0, wanted / present)[:, None]
        return whole.to(weight.dtype)


def _places(recipe: Recipe) -> dict[str, tuple[int, LoraConfig, list[AdapterSite]]]:
    """Return the layer, the settings of the adapters, and the parts of every weight that has adapters, by its name."""
    model, found = recipe.model, dict[str, tuple[int, LoraConfig, list[AdapterSite]]]()
    for part in ("language", "vision"):
        for layer, site in adapters_of(model, part):
            if part == "language":
                sites, lora, prefix = language_sites(model.language), model.language.lora, LAYER_PREFIX
            else:
                assert model.vision is not None
                sites, lora = vision_sites(model.vision), model.vision.lora
                prefix = f"{vision_family(model.vision).layers}."
            assert lora is not None
            name = f"{part}.{prefix}{layer}.{site.core}.weight"
            found[name] = layer, lora, [one for one in sites if one.core == site.core]
    return found


def _base(recipe: Recipe, part: str, tokenizer: Tokenizer | None) -> Weights:
    path = Path(getattr(recipe.model, part).source)
    if not is_huggingface(path):
        return CheckpointWeights(path, saved_recipe(path))
    directory = open_directory(path, thorough=True)
    there = None if directory.configuration is None else vocabulary_rows(directory.configuration)
    new_tokens = range(0) if tokenizer is None else tokenizer.new_tokens
    return part_of_directory(directory, recipe, cast(_Part, part), 0 if there is None else there.rows, new_tokens)
