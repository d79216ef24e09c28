"""Sets the adapters of a model that is about to be trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from megatron.core import parallel_state

from neva_model.checkpoints.adapters.peft import PeftAdapters
from neva_model.checkpoints.adapters.source import AdapterSource, AdapterValues, CheckpointAdapters, require_shapes
from neva_model.model import ModelChunks
from neva_model.model.adapters import Adapter, Adapters
from neva_recipes.config import CheckpointError, LoraConfig, Recipe
from neva_recipes.families import adapters_of
from neva_recipes.storage.peft import is_peft

__all__ = ["load_initial_adapters"]


def load_initial_adapters(chunks: ModelChunks, recipe: Recipe) -> list[str]:
    """Fill the adapters of a freshly built model whose `from_pretrained` names some.

    Args:
        chunks: This rank's part of the model.
        recipe: Its recipe.

    Returns:
        Lines that say what was loaded from where.

    Raises:
        CheckpointError: They cannot be read, or are not those of the recipe.
    """
    lines, named = [], dict(_named(recipe))
    for part, lora in named.items():
        assert lora.from_pretrained is not None
        path = Path(lora.from_pretrained)
        source = _source(path, recipe, [one for one in named if named[one].from_pretrained == lora.from_pretrained])
        for chunk in chunks:
            adapters: Adapters | None = getattr(chunk, f"{part}_adapters")
            if adapters is not None:
                _fill(adapters, part, lora, source, path)
        number = len(list(adapters_of(recipe.model, part)))
        lines.append(f"{part}: {number} adapters loaded from {path}")
    return lines


def _named(recipe: Recipe) -> Iterator[tuple[str, LoraConfig]]:
    """Yield the parts whose adapters start from others, and their settings."""
    for part in ("language", "vision"):
        config = recipe.model.language if part == "language" else recipe.model.vision
        if config is not None and config.lora is not None and config.lora.from_pretrained is not None:
            yield part, config.lora


def _source(path: Path, recipe: Recipe, parts: Sequence[str]) -> AdapterSource:
    """Return the adapters that some parts start from: one that is left out would be missing in the model."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory, expected a run with adapters or a directory of PEFT")
    source: AdapterSource = PeftAdapters(path, recipe.model) if is_peft(path) else CheckpointAdapters(path)
    found, expected = source.number(parts), sum(len(list(adapters_of(recipe.model, part))) for part in parts)
    if found != expected:
        fields = " and ".join(f"model.{part}.lora" for part in parts)
        raise CheckpointError(f"{path}: has {found} adapters, the recipe has {expected} of {fields}")
    return source


@torch.no_grad()
def _fill(adapters: Adapters, part: str, lora: LoraConfig, source: AdapterSource, path: Path) -> None:
    rank = parallel_state.get_tensor_model_parallel_rank()
    for layer, adapter in adapters.by_layer():
        values = source.read(part, layer, adapter.site)
        require_shapes(path, values, adapter.site, lora, part=part, layer=layer)
        _set(adapter, values, rank)


def _set(adapter: Adapter, values: AdapterValues, rank: int) -> None:
    def own(whole: torch.Tensor, like: torch.Tensor, dimension: int) -> torch.Tensor:
        ranks = whole.shape[dimension] // like.shape[dimension]
        return whole if ranks == 1 else whole.chunk(ranks, dimension)[rank]

    adapter.a.copy_(own(values.a, adapter.a, 1))
    for matrix, whole in zip(adapter.b, values.b.split(list(adapter.site.rows)), strict=True):
        matrix.copy_(own(whole, matrix, 0))
    if values.lengths is not None:
        for length, whole in zip(adapter.lengths, values.lengths.split(list(adapter.site.rows)), strict=True):
            length.copy_(own(whole, length, 0))
