"""Patches for Megatron-Core on a machine without a GPU: the only global state that this project permits.

Megatron-Core asks `torch.cuda` for the current device, for random states and for small tensors without checking that
there is a GPU. `install` answers those calls from the CPU. With a GPU nothing is patched. The version of Megatron-Core
is checked, because two of the patches (the random states) would fail silently if Core moved the functions they replace:
activation recompute would then draw other dropout masks than the forward pass did.
"""

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

import megatron.core
import megatron.core.optimizer as core_optimizer
import megatron.core.optimizer.distrib_optimizer as core_distributed_optimizer
import megatron.core.tensor_parallel.random as core_random
import torch

from neva_model.model.cpu_adam import CpuFusedAdam
from neva_recipes.config import RunError
from neva_recipes.plan.core_release import CORE_RELEASES, core_for_this_python

__all__ = ["install"]

_CPU = torch.device("cpu")

_MODULES_WITH_CUDA_LITERALS = (
    "megatron.core.dist_checkpointing.exchange_utils",
    "megatron.core.dist_checkpointing.strategies.state_dict_saver",
    "megatron.core.models.common.embeddings.rope_utils",
    "megatron.core.optimizer.clip_grads",
    "megatron.core.optimizer.optimizer",
    "megatron.core.pipeline_parallel.schedules",
    "megatron.core.utils",
)
"""Modules in which Core makes tensors with `device="cuda"` or in pinned memory, whatever the machine has."""


def install() -> None:
    """Make Megatron-Core usable in this process; call it before any of Core's objects is built.

    Without a GPU the CUDA calls of Core are answered from the CPU. Without Transformer Engine and Apex, Core's
    optimizer gets an Adam whose state the distributed optimizer can save and load. A second call changes nothing.

    Raises:
        RunError: Another release of Megatron-Core is installed.
    """
    # A commit may stand behind the plus sign.
    release = megatron.core.__version__.partition("+")[0]
    if release not in CORE_RELEASES:
        raise RunError(
            f"megatron-core {release} is installed, expected {' or '.join(CORE_RELEASES)}: "
            f"pip install megatron-core=={core_for_this_python()}"
        )
    if core_optimizer.USING_PYTORCH_OPTIMIZER:
        _install_adam()
    current_device: object = torch.cuda.current_device
    if not torch.cuda.is_available() and current_device is not _current_device:
        _install_devices()
        _install_random_states()


def _install_adam() -> None:
    # Without Transformer Engine and Apex, Core picks torch's AdamW. Its distributed optimizer then looks for a step
    # count per parameter but saves one per group: loading such a checkpoint fails or diverges.
    core_optimizer.Adam = CpuFusedAdam
    core_optimizer.USING_PYTORCH_OPTIMIZER = False
    core_distributed_optimizer.Adam = CpuFusedAdam
    core_distributed_optimizer.HAVE_APEX_OR_TE = True
    core_distributed_optimizer.USING_APEX_OPTIMIZER = True


def _current_device() -> torch.device:
    return _CPU


def _install_devices() -> None:
    cuda: Any = torch.cuda
    tensor: Any = torch.Tensor
    # Core writes `device=torch.cuda.current_device()` wherever it makes a buffer.
    cuda.current_device = _current_device
    # Core waits for it after pipeline communication and around checkpoints; gloo's calls are done when they return.
    cuda.synchronize = _do_nothing
    # Core 0.19 asks for it before each reduction of gradients, to wait for the CUDA graphs that it has recorded.
    cuda.current_stream = _do_nothing
    # Only the name `torch` in these modules is replaced. torch's own functions must stay the ones that its device
    # contexts know, or transformers could no longer build models on the meta device.
    stand_in = _TorchOnCpu()
    for name in _MODULES_WITH_CUDA_LITERALS:
        module: Any = importlib.import_module(name)
        module.torch = stand_in
    # Shared embeddings and loaded optimizer states are moved with `.cuda()`.
    tensor.cuda = _stay_here
    # The optimizer sorts parameters by comparing `type()` with 'torch.cuda.FloatTensor' and similar names.
    tensor.type = _cuda_type_names(tensor.type)


def _install_random_states() -> None:
    cuda: Any = torch.cuda
    # The random-state tracker that gives tensor-parallel ranks different dropout masks uses these three.
    cuda.get_rng_state = _get_random_state
    cuda.set_rng_state = _set_random_state
    cuda.manual_seed = _manual_seed
    # The tracker and activation recompute also use two functions of Core.
    core_random._get_cuda_rng_state = _get_random_state
    core_random._set_cuda_rng_state = _set_random_state
    # Core warns if the CPU's random state changes in a region that should only touch the GPU's; here it must change.
    logging.getLogger(core_random.__name__).addFilter(_is_not_random_state_warning)


def _do_nothing(*_: object, **__: object) -> None:
    pass


class _TorchOnCpu:
    """The torch module, but tensors asked for on a GPU, or in pinned memory, are made on the CPU."""

    def __init__(self) -> None:
        for name in ("tensor", "zeros", "empty", "empty_like"):
            setattr(self, name, _on_cpu(getattr(torch, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _on_cpu(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(factory)
    def make(*args: object, device: object = None, pin_memory: bool = False, **kwargs: object) -> torch.Tensor:
        return factory(*args, device=_CPU if device == "cuda" else device, **kwargs)

    return make


def _stay_here(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    return tensor


def _cuda_type_names(type_of: Callable[..., object]) -> Callable[..., Any]:
    @functools.wraps(type_of)
    def named(tensor: torch.Tensor, *args: object, **kwargs: object) -> Any:
        result = type_of(tensor, *args, **kwargs)
        return result.replace("torch.", "torch.cuda.", 1) if isinstance(result, str) else result

    return named


def _get_random_state(*_: object, **__: object) -> torch.Tensor:
    return torch.get_rng_state()


def _set_random_state(state: torch.Tensor, *_: object, **__: object) -> None:
    torch.set_rng_state(state)


def _manual_seed(seed: int) -> None:
    torch.manual_seed(seed)


def _is_not_random_state_warning(record: logging.LogRecord) -> bool:
    return "CPU RNG state changed" not in record.getMessage()
