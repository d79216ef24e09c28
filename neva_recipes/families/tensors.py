"""The weights of a language model: Core's parameters, and the tensors of Hugging Face that they are made of."""

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["LAYER_PREFIX", "Axis", "Layout", "Part", "Shape", "Weight", "with_tensors"]

Shape = tuple[int, ...]

Axis = str | tuple[str, ...]
"""The name of a dimension, or the names of several parts that lie one after the other in it."""

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
    """Parts one above the other, each of them cut by rows: gate and up, or one alone."""
    VOCABULARY = enum.auto()
    """Cut by rows, after padding to a number of rows that divides."""


class Part(NamedTuple):
    """Rows of one of Core's parameters, where Hugging Face holds them.

    Attributes:
        tensor: The tensor.
        above: What comes before them in it, by the names of dimensions.
        rows: The name of their own dimension.
    """

    tensor: str
    above: tuple[str, ...]
    rows: str

    def place(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Return the first of its rows in the tensor, and their number.

        Args:
            sizes: The sizes of the model, by the names of the dimensions.
        """
        return sum(sizes[axis] for axis in self.above), sizes[self.rows]


@dataclass(frozen=True)
class Weight:
    """One of Core's parameters.

    Attributes:
        core: Core's name; within a layer, what follows the number of the layer.
        tensors: The tensors of a Hugging Face directory that it is made of, in the order in which it holds them. Each
            has the names of its dimensions: `hidden`, `ffn`, `queries`, `keys` (as wide as the values), `groups` (all
            three, interleaved as Core does), `head`, `vocabulary`, `positions`. A tuple of names is a dimension in
            which several parts lie one after the other, as in a tensor of query, key and value.
        layout: How it holds them.
        fused: Core's name with Transformer Engine, if that keeps it elsewhere.
        transposed: Whether the tensors are stored with the input as first dimension, as transformers' Conv1D does.
    """

    core: str
    tensors: Mapping[str, tuple[Axis, ...]]
    layout: Layout = Layout.WHOLE
    fused: str | None = None
    transposed: bool = False

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, Shape]:
        """Return the shapes of its tensors, by their names.

        Args:
            sizes: The sizes of the model, by the names of the dimensions.
        """
        return {
            name: tuple(sum(sizes[part] for part in _names(axis)) for axis in axes)
            for name, axes in self.tensors.items()
        }

    @property
    def parts(self) -> tuple[Part, ...]:
        """The rows of Core's parameter, in its order: those of every tensor, and of every part of a tensor."""
        return tuple(
            Part(tensor, names[:number], name)
            for tensor, axes in self.tensors.items()
            for names in (_names(axes[-1] if self.transposed else axes[0]),)
            for number, name in enumerate(names)
        )

    @property
    def is_matrix(self) -> bool:
        """Whether it is the weight of a linear layer or of the vocabulary, rather than a norm or a bias."""
        return all(len(axes) > 1 for axes in self.tensors.values())


def with_tensors(
    weights: Iterable[Weight], tensors: Mapping[str, Mapping[str, tuple[Axis, ...]]]
) -> tuple[Weight, ...]:
    """Return weights that are made of other tensors; those that are not named stay as they are.

    Args:
        weights: The weights.
        tensors: The other tensors, by Core's name of the weight.
    """
    return tuple(dataclasses.replace(weight, tensors=tensors.get(weight.core, weight.tensors)) for weight in weights)


def _names(axis: Axis) -> tuple[str, ...]:
    return (axis,) if isinstance(axis, str) else axis
