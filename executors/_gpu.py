"""Which type of GPU this machine has, as far as the driver says it without being loaded."""

import os
import re
from pathlib import Path

from neva_recipes.plan.gpus import GPUS

__all__ = ["gpu_named", "local_gpu_type"]

_DRIVER = Path("/proc/driver/nvidia/gpus")


def local_gpu_type() -> str | None:
    """Return the type of this machine's GPUs; none if there are none, several types, or one not in the table."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    models = set()
    for path in _DRIVER.glob("*/information"):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            return None
        models.update(re.findall(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE))
    return gpu_named(models.pop()) if len(models) == 1 else None


def gpu_named(model: str) -> str | None:
    """Return the type that NVIDIA's name of a GPU stands for, such as `a100-40g` for "NVIDIA A100-SXM4-40GB".

    A name without its memory, as in "NVIDIA H200", is understood where only one type of that generation is known.
    """
    words = re.findall(r"[a-z0-9]+", model.lower())
    alike = [name for name in GPUS if name.split("-")[0] in words]
    exact = [name for name in alike if f"{name.split('-')[-1]}b" in words]
    if len(exact) == 1:
        return exact[0]
    has_size = any(re.fullmatch(r"\d+gb", word) for word in words)
    return alike[0] if len(alike) == 1 and not has_size else None
