"""Causal core attention on PyTorch's `scaled_dot_product_attention`, for layers without Transformer Engine."""

from contextlib import nullcontext
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import scaled_dot_product_attention

from neva_model.model.context import exchange_heads, exchange_positions, gather_positions

__all__ = ["SdpaCoreAttention"]


class SdpaCoreAttention(MegatronModule):
    """Attention of this rank's query heads over its key/value heads, at the positions that this rank holds.

    Core's own module for local layer specs materialises the attention matrix (5 bytes times heads times sequence
    squared per layer) and has no lower-right causal mask, which continuing a cached sequence needs.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
    ) -> None:
        """Take the arguments that Core passes to every core-attention module.

        Args:
            config: Configuration of the transformer.
            layer_number: Number of the layer, from 1; not used.
            attn_mask_type: Must be causal.
            attention_type: Must be self-attention.
            attention_dropout: Dropout probability; `None` means the configuration's.
            softmax_scale: Factor on the scores; `None` means 1 / sqrt(head size).
            cp_comm_type: How context-parallel ranks reach each other's positions: `a2a` exchanges heads for positions,
                the other types gather keys and values.
            pg_collection: Process groups, of which the context-parallel one is used; `None` means Megatron's own.
        """
        super().__init__(config=config)
        assert attn_mask_type == AttnMaskType.causal and attention_type == "self", "only causal self-attention"
        self.context_group = pg_collection.cp if pg_collection else parallel_state.get_context_parallel_group()
        self.exchanges_heads = cp_comm_type == "a2a"
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.softmax_scale = softmax_scale
        self.window = None if config.window_size is None else config.window_size[0] + 1

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        /,
        *,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> torch.Tensor:
        """Return the attention output.

        Args:
            query: Queries `[query length, batch, heads, head size]`.
            key: Keys `[key length, batch, groups, head size]`.
            value: Values, shaped as the keys.
            attention_mask: Must be `None`.
            attn_mask_type: What Core derives from the cache; not used.
            attention_bias: Must be `None`.
            packed_seq_params: Must be `None`.

        Returns:
            `[query length, batch, heads x head size]`.
        """
        assert attention_mask is None and attention_bias is None and packed_seq_params is None
        if self.context_group.size() == 1:
            return self._attend(query, key, value).flatten(2)
        if self.exchanges_heads:
            query, key, value = (exchange_heads(tensor, self.context_group) for tensor in (query, key, value))
            return exchange_positions(self._attend(query, key, value), self.context_group).flatten(2)
        return self._attend_over_all_ranks(query, key, value).flatten(2)

    def _attend_over_all_ranks(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the output at this rank's two chunks, each of which sees the keys up to its own end."""
        ranks, rank = self.context_group.size(), self.context_group.rank()
        key, value = gather_positions(torch.cat([key, value], -1), self.context_group).split(key.shape[-1], -1)
        length = query.shape[0] // 2
        ends = ((rank + 1) * length, (2 * ranks - rank) * length)
        chunks = zip(query.chunk(2), ends, strict=True)
        return torch.cat([self._attend(chunk, key[:end], value[:end]) for chunk, end in chunks])

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the output `[query length, batch, heads, head size]`.

        The lengths alone determine the mask: equal lengths are whole sequences, one query is a decoding step over the
        cache, and several queries over more keys continue a cached sequence or are a later chunk of one. The last query
        is always at the position of the last key. With a window the query at position i sees the keys from
        i - window + 1 on; keys that no query sees are left out.
        """
        if self.window is not None:
            unseen = max(key.shape[0] - query.shape[0] - self.window + 1, 0)
            key, value = key[unseen:], value[unseen:]
        query_length, key_length = query.shape[0], key.shape[0]
        is_narrow = self.window is not None and self.window < key_length
        is_causal = query_length == key_length and not is_narrow
        mask = None
        if query_length > 1 and not is_causal:
            before = key_length - query_length
            mask = torch.ones(query_length, key_length, dtype=torch.bool, device=query.device).tril(before)
            mask = mask if self.window is None else mask.triu(before - self.window + 1)
        dropout = self.dropout if self.training else 0.0
        with self._random_state(dropout):
            output = scaled_dot_product_attention(
                query.permute(1, 2, 0, 3),
                key.permute(1, 2, 0, 3),
                value.permute(1, 2, 0, 3),
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=is_causal,
                scale=self.softmax_scale,
                enable_gqa=key.shape[2] != query.shape[2],
            )
        return output.permute(2, 0, 1, 3)

    def _random_state(self, dropout: float) -> Any:
        # Ranks hold different heads, so their masks must differ. Under sequence parallelism Core has already entered
        # the rank's own random state around the whole layer.
        if dropout == 0.0 or self.config.sequence_parallel:
            return nullcontext()
        return get_cuda_rng_tracker().fork()
