"""What a command that uses a model does before it imports one."""

import atexit
import os
import warnings

__all__ = ["prepare_process"]


def prepare_process() -> None:
    """Keep libraries from printing what no user can act on, and make Megatron-Core usable without a GPU."""
    # Megatron-Core warns about every optional GPU library at import; on a CPU machine none of them is missing.
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    # Its sharded checkpoints are made of a class that torch is about to give up.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.checkpoint")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # By default torch's threads spin while they wait for each other: with a busy core, answers take 50 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from neva_model.model.cpu_compat import install

    install()
    # NCCL complains about process groups that are still there when the process ends.
    atexit.register(_leave_process_groups)


def _leave_process_groups() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
