"""The types of GPU that memory and time can be told for."""

from dataclasses import dataclass

from neva_recipes.config import RecipeError, suggest

__all__ = ["GPUS", "Gpu", "find_gpu"]

_DEFAULT = "h100-80g"


@dataclass(frozen=True)
class Gpu:
    """A type of GPU.

    Attributes:
        name: What it is called here.
        architecture: NVIDIA's name of its generation.
        memory_gib: Memory that programs can use, in GiB.
        bandwidth: Memory bandwidth, in GB/s.
        bf16_tflops: Peak of dense bf16 matrix products, in TFLOP/s.
        fp8_tflops: The same for FP8; none where there is none.
        link: Bandwidth to the other GPUs of the machine in one direction, in GB/s.
    """

    name: str
    architecture: str
    memory_gib: float
    bandwidth: float
    bf16_tflops: float
    fp8_tflops: float | None
    link: float


GPUS: dict[str, Gpu] = {gpu.name: gpu for gpu in (Gpu("h100-80g", "Hopper", 79.6, 3350.0, 989.0, 1979.0, 450.0),)}
"""By name."""


def find_gpu(name: str | None) -> Gpu:
    """Return the GPU type of that name; none means h100-80g.

    Raises:
        RecipeError: There is no such type, with the names there are.
    """
    chosen = name or _DEFAULT
    if chosen not in GPUS:
        raise RecipeError(f"--gpu {chosen}: expected one of {', '.join(GPUS)}{suggest(chosen, GPUS)}")
    return GPUS[chosen]
