"""Context parallelism: the positions of a sequence that a rank holds, and how ranks reach each other's positions.

A sequence is cut into twice as many chunks as there are ranks; rank r of R holds chunk r and then chunk 2R-1-r. Under a
causal mask every rank then has the same amount of work. The order is Core's: its rotary embeddings and Transformer
Engine's attention count positions in the same way.
"""

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import all_to_all, gather_from_sequence_parallel_region
from torch.distributed import ProcessGroup

__all__ = ["exchange_heads", "exchange_positions", "gather_positions", "own_positions"]


def own_positions(whole: torch.Tensor, dimension: int) -> torch.Tensor:
    """Return this rank's positions of whole sequences.

    Args:
        whole: Any tensor whose length along `dimension` is a multiple of twice the number of ranks.
        dimension: The dimension of the positions.
    """
    group = parallel_state.get_context_parallel_group()
    ranks, rank = group.size(), group.rank()
    if ranks == 1:
        return whole
    assert whole.shape[dimension] % (2 * ranks) == 0, "rows are padded to a multiple of the chunks"
    chunks = whole.chunk(2 * ranks, dimension)
    return torch.cat([chunks[rank], chunks[-1 - rank]], dimension)


def gather_positions(own: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
    """Return the positions of all ranks in their order; gradients are summed and go back to the rank they belong to.

    Args:
        own: This rank's positions `[positions / ranks, ...]`.
        group: The context-parallel ranks.

    Returns:
        `[positions, ...]`, the same on every rank.
    """
    return _in_order(gather_from_sequence_parallel_region(own, group=group), group.size())


def exchange_heads(own: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
    """Exchange heads for positions: from all heads at own positions to own heads at all positions.

    DeepSpeed-Ulysses, arXiv 2309.14509, section 3.

    Args:
        own: `[positions / ranks, batch, heads, size]`; the heads are a multiple of the ranks.
        group: The context-parallel ranks.

    Returns:
        `[positions, batch, heads / ranks, size]`.
    """
    by_rank = own.unflatten(2, (group.size(), -1)).movedim(2, 0)
    return _in_order(all_to_all(group, by_rank).flatten(0, 1), group.size())


def exchange_positions(own: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
    """Undo `exchange_heads`: from own heads at all positions to all heads at own positions.

    Args:
        own: `[positions, batch, heads / ranks, size]`.
        group: The context-parallel ranks.

    Returns:
        `[positions / ranks, batch, heads, size]`.
    """
    ranks = group.size()
    chunks = own.chunk(2 * ranks)
    by_rank = torch.stack([torch.cat([chunks[rank], chunks[-1 - rank]]) for rank in range(ranks)])
    return all_to_all(group, by_rank).movedim(0, 2).flatten(2, 3)


def _in_order(by_rank: torch.Tensor, ranks: int) -> torch.Tensor:
    """Return positions in their order, given those of rank 0, rank 1 and so on."""
    chunks = by_rank.chunk(2 * ranks)
    return torch.cat([*chunks[0::2], *reversed(chunks[1::2])])
