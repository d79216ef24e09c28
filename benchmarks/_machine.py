"""What this machine is, and how fast it multiplies matrices: `python benchmarks/_machine.py SIZE` prints it as JSON.

A process of its own, because a CUDA context takes memory of the GPU for as long as its process lives.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from typing import Any

import torch

_WARM_UP, _REPETITIONS = 10, 50
_LARGEST_ON_CPU = 256
_PACKAGES = ("torch", "transformer-engine", "megatron-core", "lightning", "transformers", "numpy")


def describe() -> dict[str, Any]:
    """Return names, versions and sizes; `None` for what is not here."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "packages": {name: _version(name) for name in _PACKAGES},
        "transformer_engine_error": _transformer_engine_error(),
        "gpu": None,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts["gpu"] = {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 2),
            "capability": f"{properties.major}.{properties.minor}",
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        }
    return facts


def matrix_product(size: int) -> dict[str, Any]:
    """Return the speed of the bf16 product of two square matrices of random numbers, the mean of many.

    Without a GPU the matrices are small: the figure then only shows that it can be measured.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = size if device == "cuda" else min(size, _LARGEST_ON_CPU)
    # Products of zeros or of constants run faster than those of data.
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(_WARM_UP):
        left @ right
    _wait(device)
    started = time.perf_counter()
    for _ in range(_REPETITIONS):
        left @ right
    _wait(device)
    seconds = (time.perf_counter() - started) / _REPETITIONS
    return {"size": size, "device": device, "milliseconds": seconds * 1e3, "tflops": 2 * size**3 / seconds / 1e12}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _transformer_engine_error() -> str | None:
    """Return why Transformer Engine cannot be imported; `None` if it can, or is not installed."""
    if not torch.cuda.is_available() or _version("transformer-engine") is None:
        return None
    try:
        import transformer_engine.pytorch  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"[:500]
    return None


def _driver() -> str | None:
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
        )
    except OSError:
        return None
    return answer.stdout.splitlines()[0].strip() if answer.returncode == 0 and answer.stdout.strip() else None


if __name__ == "__main__":
    print(json.dumps({**describe(), "matmul": matrix_product(int(sys.argv[1]))}))
