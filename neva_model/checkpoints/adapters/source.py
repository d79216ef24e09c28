"""Reads the matrices of adapters, from a checkpoint or a directory of PEFT."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from neva_model.checkpoints.information import read_information, resolve_checkpoint, saved_recipe
from neva_model.checkpoints.weights.pieces import read_part
from neva_recipes.config import CheckpointError, LoraConfig, Recipe
from neva_recipes.families import AdapterSite, adapters_of
from neva_recipes.storage.tensors import CheckpointTensor, checkpoint_tensors

__all__ = ["AdapterSource", "AdapterValues", "CheckpointAdapters", "require_shapes"]


class AdapterValues(NamedTuple):
    """What one adapter holds, whole.

    Attributes:
        a: The first matrix `[rank, inputs]`.
        b: The second matrix `[outputs, rank]`.
        lengths: With DoRA the length of each row `[outputs]`; otherwise `None`.
        scale: What they add is multiplied by this.
    """

    a: torch.Tensor
    b: torch.Tensor
    lengths: torch.Tensor | None
    scale: float


class AdapterSource(Protocol):
    """Adapters of a model."""

    def number(self, parts: Collection[str]) -> int:
        """Return how many adapters there are of some parts of a model: `language`, `vision`."""

    def read(self, part: str, layer: int, site: AdapterSite) -> AdapterValues:
        """Return an adapter.

        Args:
            part: `language` or `vision`.
            layer: The layer, from 0.
            site: The linear layer.

        Raises:
            CheckpointError: It is not there, or of another shape.
        """


class CheckpointAdapters:
    """The adapters of a checkpoint; averaged ones where it has them."""

    def __init__(self, path: Path, recipe: Recipe | None = None) -> None:
        """Find the adapters; nothing is read yet.

        Args:
            path: A run or a checkpoint.
            recipe: The recipe that the checkpoint was saved with, if it is known.

        Raises:
            CheckpointError: There is no such checkpoint, it is damaged, or it has no adapters.
        """
        self._checkpoint = resolve_checkpoint(path)
        read_information(self._checkpoint)
        self.recipe = recipe or saved_recipe(self._checkpoint)
        if not self.recipe.model.has_adapters:
            raise CheckpointError(f"{path}: its model has no adapters: model.language.lora is none in its recipe")
        self._tensors = checkpoint_tensors(self._checkpoint)

    def number(self, parts: Collection[str]) -> int:
        """Return how many adapters there are of some parts of the model, as `AdapterSource.number` does."""
        return sum(len(list(adapters_of(self.recipe.model, part))) for part in parts)

    def read(self, part: str, layer: int, site: AdapterSite) -> AdapterValues:
        """Return an adapter, as `AdapterSource.read` does."""
        config = self.recipe.model.language if part == "language" else self.recipe.model.vision
        assert config is not None and config.lora is not None
        name, parts = f"{part}_adapters.layers.{layer}.{site.module}", range(len(site.rows))
        is_dora = config.lora.kind == "dora"
        return AdapterValues(
            self._tensor(f"{name}.a"),
            torch.cat([self._tensor(f"{name}.b.{number}") for number in parts]),
            torch.cat([self._tensor(f"{name}.lengths.{number}") for number in parts]) if is_dora else None,
            config.lora.scale,
        )

    def _tensor(self, name: str) -> torch.Tensor:
        key = next((key for key in (f"average.{name}", name) if key in self._tensors), None)
        if key is None:
            raise CheckpointError(f"{self._checkpoint}: has no tensor {name}, which its recipe needs")
        tensor: CheckpointTensor = self._tensors[key]
        return read_part(self._checkpoint, key, tensor, (0,) * len(tensor.shape), tensor.shape)


def require_shapes(
    where: Path, values: AdapterValues, site: AdapterSite, lora: LoraConfig, *, part: str, layer: int
) -> None:
    """Check that an adapter is the one of a recipe.

    Raises:
        CheckpointError: A matrix has another shape, or they count more or less; the message names both.
    """
    outputs, name = sum(site.rows), f"layers.{layer}.{site.module}"
    for matrix, shape in (("A", (lora.rank, site.columns)), ("B", (outputs, lora.rank))):
        found = tuple((values.a if matrix == "A" else values.b).shape)
        if found != shape:
            raise CheckpointError(
                f"{where}: matrix {matrix} of {name} has shape {list(found)}, the recipe needs {list(shape)}"
            )
    if (values.lengths is None) == (lora.kind == "dora"):
        has = "no lengths of rows, which DoRA has" if values.lengths is None else "lengths of rows, as DoRA has"
        raise CheckpointError(f"{where}: {name} has {has}, and the recipe says kind={lora.kind}")
    if not math.isclose(values.scale, lora.scale, rel_tol=1e-6):
        alpha = values.scale / lora.scale * lora.used_alpha
        raise CheckpointError(
            f"{where}: {name} was trained with a factor of {values.scale:g}, alpha and rank of the recipe make "
            f"{lora.scale:g}: set model.{part}.lora.alpha={alpha:.6g}"
        )
