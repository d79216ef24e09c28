"""What has to be settled before Megatron-Core is first imported."""

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

__all__ = ["prepare_imports"]

_STASH_KERNELS = "megatron.core.transformer.moe.ops.paged_stash"
"""Kernels for mixtures of experts, which no model of ours has; Core 0.19 imports them with every GPTModel."""


def prepare_imports() -> None:
    """Let Core be imported without git and without triton."""
    # Core 0.19 would ask git at each import for the commit of whatever repository it is installed in, and append it to
    # its version.
    os.environ.setdefault("NO_VCS_VERSION", "1")
    # PyTorch's builds for CUDA bring triton, those for CPUs do not.
    if importlib.util.find_spec("triton") is None:
        kernels: Any = ModuleType(_STASH_KERNELS)
        kernels.GLOBAL_BLOCK_SIZE = 1024
        kernels.paged_stash_copy_kernel = kernels.paged_stash_pop_kernel = None
        sys.modules[_STASH_KERNELS] = kernels
