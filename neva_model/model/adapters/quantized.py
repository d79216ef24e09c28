"""Fixed weights of linear layers in 4 bits (NF4 with double quantization, Dettmers et al., arXiv 2305.14314)."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region

from neva_model.model.adapters.parts import join_rows, split_rows
from neva_model.model.language import LanguageModel
from neva_recipes.config import LanguageConfig
from neva_recipes.families import AdapterSite, Layout, language_sites

__all__ = ["QuantizedWeight", "quantize_language", "weight_of"]


class QuantizedWeight:
    """The weight of a linear layer in 4 bits; each of Hugging Face's tensors that it is made of is quantized by itself.

    So it has the values that bitsandbytes gives transformers' model of the same weights.
    """

    def __init__(self, weight: torch.Tensor, sites: Sequence[AdapterSite], *, ranks: int = 1, groups: int = 1) -> None:
        """Quantize a weight.

        Args:
            weight: The weight on this rank `[outputs, inputs]`.
            sites: Its parts, in the order in which it holds them.
            ranks: Number of tensor-parallel ranks that share its outputs.
            groups: Number of groups of queries on this rank.
        """
        from bitsandbytes.functional import quantize_4bit

        self._layout, self._groups = sites[0].layout, groups
        self._shapes = [[size // ranks for size in site.rows] for site in sites]
        parts = iter(split_rows(weight, [size for rows in self._shapes for size in rows], self._layout, groups))
        self._quantized: list[tuple[torch.Tensor, Any]] = []
        for rows in self._shapes:
            whole = torch.cat([next(parts) for _ in rows]).contiguous()
            self._quantized.append(quantize_4bit(whole, quant_type="nf4", compress_statistics=True))

    @torch.no_grad()
    def weight(self) -> torch.Tensor:
        """Return the weight that the 4 bits stand for, in the type that it had."""
        from bitsandbytes.functional import dequantize_4bit

        parts: list[torch.Tensor] = []
        for (packed, state), rows in zip(self._quantized, self._shapes, strict=True):
            parts += dequantize_4bit(packed, state).split(rows)
        return join_rows(parts, self._layout, self._groups)

    def to(self, device: torch.device) -> None:
        """Move the 4 bits to a device, if they are not there yet."""
        if self._quantized[0][0].device != device:
            for _, state in self._quantized:
                state.to(device)
            self._quantized = [(packed.to(device), state) for packed, state in self._quantized]

    @property
    def nbytes(self) -> int:
        """Bytes of the 4 bits and of their scales."""
        total = 0
        for packed, state in self._quantized:
            total += packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
        return total


class _Product(torch.autograd.Function):
    """A product with a weight that is made of its 4 bits for each pass, and not kept in between."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, quantized: QuantizedWeight, bias: torch.Tensor | None, reduces: bool, group: Any
    ) -> torch.Tensor:
        ctx.quantized, ctx.reduces, ctx.group = quantized, reduces, group
        output = inputs @ quantized.weight().t()
        return output if bias is None else output + bias

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        gradient = gradients[0] @ ctx.quantized.weight()
        if ctx.reduces:
            torch.distributed.all_reduce(gradient, group=ctx.group)
        return gradient, None, None, None, None


class _Forward:
    """What a linear layer of Core's calls in place of its product with a fixed weight."""

    def __init__(self, quantized: QuantizedWeight) -> None:
        self.quantized = quantized

    def __call__(
        self,
        *,
        input: torch.Tensor,
        bias: torch.Tensor | None,
        allreduce_dgrad: bool,
        sequence_parallel: bool,
        tp_group: Any,
        **_: object,
    ) -> torch.Tensor:
        self.quantized.to(input.device)
        if sequence_parallel:
            input = gather_from_sequence_parallel_region(input, tensor_parallel_output_grad=True, group=tp_group)
        result: torch.Tensor = _Product.apply(input, self.quantized, bias, allreduce_dgrad, tp_group)
        return result


def quantize_language(model: LanguageModel, language: LanguageConfig) -> None:
    """Put the weights of a stage's linear layers into 4 bits, if the recipe says so; they are loaded already."""
    if language.quantize is None:
        return
    ranks, sites = model.config.tensor_model_parallel_size, language_sites(language)
    for layer in model.decoder.layers:
        for core, parts in itertools.groupby(sites, key=lambda site: site.core):
            own, linear = list(parts), layer.get_submodule(core)
            shared = 1 if own[0].layout in (Layout.COLUMNS, Layout.WHOLE) else ranks
            groups = language.num_query_groups // ranks
            quantized = QuantizedWeight(linear.weight.detach(), own, ranks=shared, groups=groups)
            del linear._parameters["weight"]
            linear.weight = torch.empty(0)  # Core passes it on
            linear._forward_impl = _Forward(quantized)


def weight_of(linear: torch.nn.Module) -> torch.Tensor:
    """Return the weight of a linear layer, or what its 4 bits stand for."""
    forward = getattr(linear, "_forward_impl", None)
    return forward.quantized.weight() if isinstance(forward, _Forward) else linear.get_parameter("weight")
