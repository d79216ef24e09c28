"""What every process that uses a model does before it imports one."""

import atexit
import functools
import gc
import logging
import os
import warnings

__all__ = ["prepare_command", "prepare_process"]


def prepare_process() -> None:
    """Keep libraries from printing what no user can act on, and make Megatron-Core usable without a GPU.

    What goes wrong they raise. It must come before any other import of Megatron-Core, Lightning or transformers.
    """
    # Lightning announces every process and every unused feature.
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore", module=r"lightning\.")
    # Megatron-Core warns about every optional GPU library at import; on a CPU machine none of them is missing.
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    # Its sharded checkpoints are made of a class that torch is about to give up.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    # Workers decode images in parallel already; tokenizers would warn about each fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _import_libraries()
    from neva_model.model.cpu_compat import install

    install()


@functools.cache
def _import_libraries() -> None:
    """Import what the model is made of, in a third less time than plain imports take.

    They make a million objects that stay: to look for garbage among them, at every thousand of them and whenever
    training collects it later, takes a second of each process and finds nothing.
    """
    gc.disable()
    import torch

    if not torch.cuda.is_available():
        # Core has torch compile its fused functions, which run beside Transformer Engine alone; to promise that takes
        # another second, for the compiler's import.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    import neva_model.model  # noqa: F401

    gc.freeze()
    gc.enable()


def prepare_command() -> None:
    """Prepare the process of a command that uses a trained model, which no executor has set up."""
    # By default torch's threads spin while they wait for each other: with a busy core, answers take 50 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    prepare_process()
    # NCCL complains about process groups that are still there when the process ends.
    atexit.register(_leave_process_groups)


def _leave_process_groups() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
