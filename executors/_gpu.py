"""Which type of GPU this machine has, as far as the driver says it without being loaded."""

import os
import re
from pathlib import Path

from neva_recipes.plan.gpus import GPUS

__all__ = ["gpu_named", "local_gpu_type"]

_DRIVER = Path("/proc/driver/nvidia/gpus")

_WORDS_OF_ALL = {"nvidia", "tesla", "geforce", "rtx", "pcie"}
"""What names of GPUs hold that makes no difference here."""


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

    A name that does not tell the memory is understood if it tells nothing else either, as "NVIDIA H200" does, and only
    one such type is known.
    """
    words = set(re.findall(r"[a-z0-9]+", model.lower()))
    size = next((word for word in words if re.fullmatch(r"\d+gb", word)), None)
    found = []
    for name in GPUS:
        parts = name.split("-")
        sizes = {f"{part}b" for part in parts if re.fullmatch(r"\d+g", part)}
        chip = {part for part in parts if f"{part}b" not in sizes}
        if not chip <= words or (size is not None and sizes and size not in sizes):
            continue
        if size is not None or words - chip <= _WORDS_OF_ALL:
            found.append(name)
    return found[0] if len(found) == 1 else None
