"""One low-rank adapter beside a linear layer, with a share of it on each tensor-parallel rank."""

import math
from collections.abc import Iterator

import torch
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    get_cuda_rng_tracker,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
    set_tensor_model_parallel_attributes,
)
from torch.nn import functional

from neva_recipes.config import LoraConfig
from neva_recipes.families import AdapterSite, Layout

__all__ = ["Adapter"]


class Adapter(torch.nn.Module):
    """One adapter: `scale * B(A(dropout(x)))`, and with DoRA the lengths of the rows.

    Attributes:
        a: The first matrix `[rank, inputs]`, cut by columns beside a row-parallel layer.
        b: The second matrix `[outputs, rank]`, by the parts of the outputs; cut by rows beside a column-parallel layer.
        lengths: With DoRA the length of each row of the adapted weight, by the same parts; otherwise empty.
    """

    def __init__(self, site: AdapterSite, lora: LoraConfig, *, ranks: int, sequence_parallel: bool) -> None:
        """Make a rank's share of an adapter, whose values are not set yet.

        Args:
            site: The linear layer.
            lora: The settings.
            ranks: Number of tensor-parallel ranks that share the layer.
            sequence_parallel: Whether each of them holds its own positions of the sequence between layers.
        """
        super().__init__()
        self.site, self.ranks, self.scale, self.dropout = site, ranks, lora.scale, lora.dropout
        self.is_row_parallel = site.layout is Layout.COLUMNS
        self.has_own_positions = sequence_parallel
        columns, rows = (ranks, 1) if self.is_row_parallel else (1, ranks)
        self.a = torch.nn.Parameter(torch.empty(lora.rank, site.columns // columns))
        self.b = torch.nn.ParameterList([torch.empty(size // rows, lora.rank) for size in site.rows])
        lengths = site.rows if lora.kind == "dora" else ()
        self.lengths = torch.nn.ParameterList([torch.empty(size // rows) for size in lengths])
        self._mark()

    def _mark(self) -> None:
        """Tell Core which parameters the ranks share, and which see only a rank's own positions."""
        cut = dict(self.cut)
        for name, parameter in self.named_parameters():
            is_cut = self.ranks > 1 and name in cut
            set_tensor_model_parallel_attributes(parameter, is_cut, cut.get(name, -1), 1)
            sees_own = self.has_own_positions and self.site.layout is not Layout.WHOLE and name not in cut
            parameter.sequence_parallel = sees_own  # type: ignore[attr-defined]

    @property
    def cut(self) -> Iterator[tuple[str, int]]:
        """The parameters that tensor-parallel ranks share, and the dimension by which each is cut."""
        if self.site.layout is Layout.WHOLE:
            return
        if self.is_row_parallel:
            yield "a", 1
            return
        yield from ((name, 0) for name, _ in self.named_parameters() if name != "a")

    @torch.no_grad()
    def initialize(self, generator: torch.Generator, rank: int) -> None:
        """Draw the first matrix uniformly within 1 / sqrt(inputs), as PEFT does, whole and then cut; B is zero.

        Args:
            generator: Draws it.
            rank: The number of this tensor-parallel rank.
        """
        bound = 1 / math.sqrt(self.site.columns)
        whole = torch.empty(self.a.shape[0], self.site.columns, device=self.a.device)
        whole.uniform_(-bound, bound, generator=generator)
        self.a.copy_(whole.chunk(self.ranks, dim=1)[rank] if self.is_row_parallel else whole)
        for matrix in self.b:
            matrix.zero_()

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return what is added to each part of the outputs, `[..., rows of the part on this rank]`.

        Args:
            inputs: The inputs of the linear layer on this rank `[sequence, batch, inputs]`.
        """
        low = functional.linear(self._dropped(inputs), self.a) * self.scale
        if self.site.layout is not Layout.WHOLE and self.ranks > 1:
            low = self._exchanged(low)
        return [functional.linear(low, matrix) for matrix in self.b]

    def _dropped(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.dropout or not self.training:
            return inputs
        if self.ranks > 1 and (self.is_row_parallel or self.has_own_positions):
            with get_cuda_rng_tracker().fork():  # the ranks' inputs are not the same
                return functional.dropout(inputs, self.dropout)
        return functional.dropout(inputs, self.dropout)

    def _exchanged(self, low: torch.Tensor) -> torch.Tensor:
        """Return the outputs of the first matrix as the second one needs them; little is sent, for the rank is low."""
        exchange = {
            (True, True): reduce_scatter_to_sequence_parallel_region,
            (True, False): reduce_from_tensor_model_parallel_region,
            (False, True): gather_from_sequence_parallel_region,
            (False, False): copy_to_tensor_model_parallel_region,
        }[self.is_row_parallel, self.has_own_positions]
        result: torch.Tensor = exchange(low)
        return result

    def difference(self) -> list[torch.Tensor]:
        """Return what the adapter adds to each part of this rank's weight, `[rows, columns]`."""
        return [matrix @ self.a * self.scale for matrix in self.b]
