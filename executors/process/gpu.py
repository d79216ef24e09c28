"""Detects the type of this machine's GPUs from the driver's files, without loading the driver's libraries."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from neva_recipes.plan.cost.gpus import gpus_named

__all__ = ["gpu_named", "has_gpu", "local_gpu_type"]

_DRIVER = Path("/proc/driver/nvidia/gpus")
_DEVICES = Path("/dev")

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_HIDDEN = ("", "-1", "NoDevFiles")
"""Values of `CUDA_VISIBLE_DEVICES` that hide every GPU from CUDA; Slurm sets the last one."""


def local_gpu_type() -> str | None:
    """Return the type of this machine's GPUs; `None` for no GPUs, several types, or a type not in the table."""
    if os.environ.get(_VISIBLE) in _HIDDEN:
        return None
    models = set()
    for path in _DRIVER.glob("*/information"):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            return None
        models.update(re.findall(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE))
    return gpu_named(models.pop()) if len(models) == 1 else None


def has_gpu(environ: Mapping[str, str]) -> bool:
    """Return whether a process of this machine with these variables may find a GPU of any kind.

    Windows Subsystem for Linux and AMD's driver have devices of their own: dxg and kfd.
    """
    if environ.get(_VISIBLE) in _HIDDEN:
        return False
    devices = ("nvidia[0-9]*", "dxg", "kfd")
    return any(_DRIVER.glob("*/information")) or any(any(_DEVICES.glob(name)) for name in devices)


def gpu_named(model: str) -> str | None:
    """Return the type for NVIDIA's name of a GPU, such as `a100-40g` for "NVIDIA A100-SXM4-40GB".

    `None` if the GPU is not in the table or the name does not tell its memory size.
    """
    found = gpus_named(model)
    return found[0].name if len(found) == 1 else None
