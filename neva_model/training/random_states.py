"""The states of all generators of random numbers that training draws from."""

import random
from typing import Any

import numpy as np
import torch
from megatron.core import tensor_parallel

__all__ = ["random_states", "set_random_states"]


def random_states() -> dict[str, Any]:
    """Return the states of this rank's generators of random numbers."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(),
        "megatron": tensor_parallel.get_cuda_rng_tracker().get_states(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set the states that `random_states` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state(states["cuda"])
    tensor_parallel.get_cuda_rng_tracker().set_states(states["megatron"])
