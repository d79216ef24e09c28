"""The preparation of every process that uses a model, before it imports one."""

import atexit
import contextlib
import functools
import gc
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["prepare_command", "prepare_conversion", "prepare_process"]

_ONLY_FOR_METRICS = ("matplotlib", "scipy")
"""What torchmetrics imports where it is installed, to draw metrics and to rate audio. Lightning imports all of
torchmetrics, and nothing here uses a metric of it."""

_WARNINGS_OF_LIBRARIES = {
    "megatron.core.models.gpt.gpt_model": "GPTModel IS DEPRECATED",
    "megatron.core.distributed.distributed_data_parallel": "DistributedDataParallel: full_param_layout not provided",
    "megatron.core.dist_checkpointing.strategies.common": "load_common is deprecated",
    "megatron.core.dist_checkpointing.strategies.torch": "MCore's async save is deprecated",
    "torch.utils.cpp_extension": "No CUDA runtime is found",
    "torch.utils.flop_counter": "triton not found",
}
"""Loggers of Core 0.19 and of torch's build for CUDA, and how those of their warnings begin that no user can act on."""


def prepare_process() -> None:
    """Silence messages of libraries that no user can act on, and make Megatron-Core usable without a GPU.

    Errors are still raised. Call this before any other import of Megatron-Core, Lightning or transformers.
    """
    # Lightning announces every process and every unused feature.
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore", module=r"lightning\.")
    # Megatron-Core warns about every optional GPU library at import; on a CPU machine none of them is missing.
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    # Core's sharded checkpoints use a class that torch has deprecated.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    # torch warns of how Core 0.19 calls it to load a checkpoint in one process.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.distributed\.checkpoint")
    for name, beginning in _WARNINGS_OF_LIBRARIES.items():
        logging.getLogger(name).addFilter(functools.partial(_begins_otherwise, beginning))
    # Core's checkpoint writer also raises every error that it logs, and `save_sharded` explains it.
    logging.getLogger("megatron.core.dist_checkpointing.strategies.filesystem_async").setLevel(logging.CRITICAL)
    # Workers decode images in parallel already; tokenizers would warn about each fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _import_libraries()
    from neva_model.model.cpu_compat import install

    install()


def _begins_otherwise(beginning: str, record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(beginning)


@functools.cache
def _import_libraries() -> None:
    """Import the libraries of the model, in a third less time than plain imports take."""
    with _nothing_is_garbage():
        import torch

        if not torch.cuda.is_available():
            # Core has torch compile its fused functions, which are used only with Transformer Engine; importing the
            # compiler for that would take another second.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        with _as_if_not_installed(*_ONLY_FOR_METRICS):
            import lightning.pytorch  # noqa: F401
        import neva_model.model  # noqa: F401


@contextlib.contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """Import libraries without searching them for garbage, now and later.

    They make a million objects that stay. To search them, after every thousand of them and at each later collection
    during training, would take each process a second and find nothing.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def _as_if_not_installed(*names: str) -> Iterator[None]:
    """Hide packages that are not imported yet from the imports within, so that these take less time."""
    hidden = [name for name in names if name not in sys.modules]
    modules: Any = sys.modules
    find = importlib.metadata.distribution

    def find_others(distribution_name: str) -> importlib.metadata.Distribution:
        if distribution_name in hidden:
            raise importlib.metadata.PackageNotFoundError(distribution_name)
        return find(distribution_name)

    # torchmetrics asks both whether there is such a module and for the version of the package.
    modules.update(dict.fromkeys(hidden))
    importlib.metadata.distribution = find_others
    try:
        yield
    finally:
        importlib.metadata.distribution = find
        for name in hidden:
            del modules[name]


def prepare_conversion() -> None:
    """Prepare the process of a command that reads and writes weights one after the other."""
    # Huge pages, where the kernel gives them: each weight is new memory, and 4 KiB at a time this takes as long as
    # copying the files.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with _nothing_is_garbage():
        import torch.distributed.checkpoint  # noqa: F401


def prepare_command() -> None:
    """Prepare the process of a command that uses a trained model, which no executor has set up."""
    # By default torch's threads spin while they wait for each other: with a busy core, answers take 50 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    prepare_process()
    # NCCL complains about process groups that still exist when the process ends.
    atexit.register(_leave_process_groups)


def _leave_process_groups() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
