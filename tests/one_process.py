"""Process groups of one process, for tests that build a model; a conftest.py imports the fixture."""

import os

import pytest
import torch

from neva_model.model import cpu_compat


@pytest.fixture(scope="session", autouse=True)
def one_process():
    # Several threads would wait for each other, spinning, wherever the machine has other things to do.
    torch.set_num_threads(1)
    cpu_compat.install()
    from megatron.core import parallel_state, tensor_parallel

    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    if not parallel_state.is_initialized():
        parallel_state.initialize_model_parallel()
    tensor_parallel.model_parallel_cuda_manual_seed(1234)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
