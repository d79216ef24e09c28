"""A linear layer with adapters beside it."""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core import parallel_state

from neva_model.model.adapters.adapter import Adapter
from neva_model.model.adapters.parts import join_parts, split_parts
from neva_model.model.adapters.quantized import weight_of
from neva_recipes.families import AdapterSite, Layout

__all__ = ["AdaptedLinear"]


class AdaptedLinear:
    """Adds adapters to what a linear layer computes: a forward hook of the layer."""

    def __init__(
        self,
        linear: torch.nn.Module,
        sites: Sequence[AdapterSite],
        adapters: Sequence[Adapter | None],
        *,
        ranks: int = 1,
        groups: int = 1,
    ) -> None:
        """Hook onto a layer.

        Args:
            linear: The layer: one of Core's, or of torch's.
            sites: The parts of the layer, in the order in which it holds them.
            adapters: Their adapters; `None` for a part without one.
            ranks: Number of tensor-parallel ranks that share its outputs.
            groups: Number of groups of queries on this rank, which Core interleaves with keys and values.
        """
        self._layout, self._adapters, self._groups = sites[0].layout, adapters, groups
        self._shapes = [[size // ranks for size in site.rows] for site in sites]
        linear.register_forward_hook(self)

    def __call__(self, linear: torch.nn.Module, arguments: tuple[torch.Tensor, ...], output: Any) -> Any:
        """Return the output with what the adapters add."""
        values, *others = output if isinstance(output, tuple) else (output,)
        added = self._added(arguments[0], values)
        if any(adapter is not None and len(adapter.lengths) for adapter in self._adapters):
            bias = getattr(linear, "bias", None)
            own = values if bias is None or getattr(linear, "skip_bias_add", False) else values - bias
            factor = self._length_factor(weight_of(linear))
            values = values + (factor - 1) * own + factor * added
        else:
            values = values + added
        return (values, *others) if isinstance(output, tuple) else values

    def _added(self, inputs: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for adapter, rows in zip(self._adapters, self._shapes, strict=True):
            if adapter is None:
                parts += [like.new_zeros(*like.shape[:-1], size) for size in rows]
            else:
                parts += adapter(inputs)
        return self._joined(parts)

    def _joined(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Return parts of the last dimension in the order in which the layer holds them."""
        return join_parts(parts, self._layout, self._groups)

    @torch.no_grad()
    def row_lengths(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the length of each row of the adapted weight on this rank."""
        parts: list[torch.Tensor] = []
        for adapter, rows in zip(self._adapters, self._shapes, strict=True):
            if adapter is None:
                parts += [weight.new_zeros(weight.shape[1], size) for size in rows]
            else:
                parts += [difference.T for difference in adapter.difference()]
        squares = (weight + self._joined(parts).T).float().square().sum(dim=1)
        if self._layout is Layout.COLUMNS:
            torch.distributed.all_reduce(squares, group=parallel_state.get_tensor_model_parallel_group())
        return squares.sqrt().to(weight.dtype)

    def _length_factor(self, weight: torch.Tensor) -> torch.Tensor:
        """Return by what DoRA multiplies each output; it takes the length of the adapted row as a constant."""
        present = self.row_lengths(weight)
        parts: list[torch.Tensor] = []
        for adapter, own in zip(self._adapters, self._split(present), strict=True):
            parts += own if adapter is None else list(adapter.lengths)
        return self._joined(parts) / present

    def _split(self, joined: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return the parts of a vector that is in the order of the layer, by the sites."""
        sizes = [size for rows in self._shapes for size in rows]
        found = iter(split_parts(joined, sizes, self._layout, self._groups))
        return [[next(found) for _ in rows] for rows in self._shapes]

    @torch.no_grad()
    def initialize_lengths(self, weight: torch.Tensor) -> None:
        """Set DoRA's lengths to those of the present rows, so that they change nothing yet."""
        for adapter, parts in zip(self._adapters, self._split(self.row_lengths(weight)), strict=True):
            for length, part in zip(adapter.lengths if adapter is not None else (), parts, strict=False):
                length.copy_(part)
