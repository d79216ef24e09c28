"""The weights of a language model: Core's parameters, and the tensors of Hugging Face that they are made of."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LAYER_PREFIX", "Layout", "Shape", "Weight"]

Shape = tuple[int, ...]

LAYER_PREFIX = "decoder.layers."
"""What Core's names of the weights in a layer begin with; the number of the layer and a dot follow."""


class Layout(enum.Enum):
    """How tensor-parallel ranks share one of Core's parameters, and how it holds its tensors."""

    WHOLE = enum.auto()
    """Every rank holds all of it."""
    COLUMNS = enum.auto()
    """Cut by columns: the weight of a row-parallel linear layer."""
    GROUPS = enum.auto()
    """Query, key and value, interleaved: the queries of a group, its key, its value. Cut by rows."""
    STACKED = enum.auto()
    """Tensors one above the other, each of them cut by rows: gate and up, or one alone."""
    VOCABULARY = enum.auto()
    """Cut by rows, after padding to a number of rows that divides."""


@dataclass(frozen=True)
class Weight:
    """One of Core's parameters.

    Attributes:
        core: Core's name; within a layer, what follows the number of the layer.
        tensors: The tensors of a Hugging Face directory that it is made of, in the order in which it holds them. Each
            has the names of its dimensions: `hidden`, `ffn`, `queries`, `keys` (as wide as the values), `head`,
            `vocabulary`.
        layout: How it holds them.
        fused: Core's name with Transformer Engine, if that keeps it elsewhere.
    """

    core: str
    tensors: Mapping[str, tuple[str, ...]]
    layout: Layout = Layout.WHOLE
    fused: str | None = None

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, Shape]:
        """Return the shapes of its tensors, by their names.

        Args:
            sizes: The sizes of the model, by the names of the dimensions.
        """
        return {name: tuple(sizes[axis] for axis in axes) for name, axes in self.tensors.items()}

    @property
    def is_matrix(self) -> bool:
        """Whether it is the weight of a linear layer or of the vocabulary, rather than a norm or a bias."""
        return all(len(axes) > 1 for axes in self.tensors.values())
