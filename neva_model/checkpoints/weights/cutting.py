"""Which rank of a layout holds, and so saves, which part of which weight."""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

from neva_model.checkpoints.weights.names import LANGUAGE, weight_shapes
from neva_recipes.config import Recipe
from neva_recipes.families import Layout, language_family
from neva_recipes.families.tensors import LAYER_PREFIX, Shape
from neva_recipes.plan.cost.sizes import layers_per_stage

__all__ = ["Cut", "Share"]


class Share(NamedTuple):
    """A part of a weight that one rank saves.

    Attributes:
        rank: The rank.
        first: Where the part begins in the weight, in each dimension.
        shape: Its shape.
    """

    rank: int
    first: Shape
    shape: Shape


class Cut:
    """A model cut over tensor- and pipeline-parallel ranks, with one replica, as Core cuts it."""

    def __init__(self, recipe: Recipe) -> None:
        """Store the layout.

        Args:
            recipe: Names the model and its layout, which divides it.
        """
        self._language, self._ranks = recipe.model.language, recipe.parallel.tensor_model_parallel_size
        self._family = language_family(self._language)
        stages = layers_per_stage(recipe)
        assert stages is not None  # the layout divides the model
        self._ends = list(accumulate(stages, initial=0))
        self._shapes = weight_shapes(recipe.model)

    def rank_of_layer(self, layer: int) -> int:
        """Return the first rank of the pipeline stage that holds a layer."""
        stages = (stage for stage, (first, end) in enumerate(pairwise(self._ends)) if first <= layer < end)
        return next(stages) * self._ranks

    def shares(self, name: str) -> Iterator[Share]:
        """Yield the parts of a weight; padding of the vocabulary is among them.

        Args:
            name: The weight.
        """
        shape = self._shapes[name]
        if not name.startswith(LANGUAGE):  # whole on every rank of the first stage
            yield Share(0, (0,) * len(shape), shape)
            return
        core = name.removeprefix(LANGUAGE)
        weight, _ = self._family.weight(core)
        rank = self._first_rank(core)
        if weight.layout is Layout.WHOLE:
            yield Share(rank, (0,) * len(shape), shape)
            return
        if weight.layout is Layout.VOCABULARY:
            shape = self._language.padded_vocab_size(self._ranks), *shape[1:]
        axis = 1 if weight.layout is Layout.COLUMNS else 0
        # A stack holds matrices of one height, such as SwiGLU's two, and each rank has its share of every one.
        blocks = len(weight.parts) if weight.layout is Layout.STACKED else 1
        size = shape[axis] // (blocks * self._ranks)
        for number in range(self._ranks):
            for block in range(blocks):
                first = (block * self._ranks + number) * size
                yield Share(rank + number, _at(axis, first, (0,) * len(shape)), _at(axis, size, shape))

    def _first_rank(self, core: str) -> int:
        """Return the first rank of the stage that saves a weight of the language model."""
        if core.startswith(LAYER_PREFIX):
            _, layer = self._family.weight(core)
            assert layer is not None
            return self.rank_of_layer(layer)
        # The last stage has a copy of embeddings that are the output layer too, which the first one saves.
        return 0 if core.startswith("embedding.") else (len(self._ends) - 2) * self._ranks


def _at(axis: int, value: int, shape: Shape) -> Shape:
    return (*shape[:axis], value, *shape[axis + 1 :])
