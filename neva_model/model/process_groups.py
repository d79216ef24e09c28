"""Megatron's process groups and random states."""

import torch
from megatron.core import parallel_state, tensor_parallel

from neva_model.model.transformer import model_parallel_sizes
from neva_recipes.config import ParallelConfig

__all__ = ["initialize_model_parallel"]

_DISTANCE_OF_SEEDS = 8192
"""More than Core adds to a seed for its own streams: 2718 and the tensor-parallel rank."""


def initialize_model_parallel(parallel: ParallelConfig, seed: int) -> None:
    """Create Megatron's process groups and seed its random states; the default process group must exist.

    Ranks of a tensor-parallel group hold the same residuals and must drop the same values. All other ranks hold other
    layers, positions or samples, and draw from other streams.

    Args:
        parallel: The layout.
        seed: Seed of dropout.
    """
    if parallel_state.is_initialized():
        return
    parallel_state.initialize_model_parallel(**model_parallel_sizes(parallel))
    # The ranks of a tensor-parallel group are consecutive.
    group = torch.distributed.get_rank() // parallel.tensor_model_parallel_size
    tensor_parallel.model_parallel_cuda_manual_seed(seed + _DISTANCE_OF_SEEDS * group)
