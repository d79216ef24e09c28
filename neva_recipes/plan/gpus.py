"""The types of GPU that memory and time can be told for.

Bandwidths and peaks are those of NVIDIA's data sheets, the peaks without sparsity: A100, H100 and H200 in the SXM form,
B200 on an HGX board, L40S, the Ada and Ampere white papers for RTX 4090 and RTX A6000 (with fp32 accumulation). The
memory is what PyTorch reports as the capacity of such a card, a little less than the sheet says.
"""

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
        fp32_tflops: Peak of fp32 products without TF32, in TFLOP/s.
        link: Bandwidth to the other GPUs of the machine in one direction, in GB/s: NVLink, or PCIe where there is none.
        network: Bandwidth to other machines in one direction, in GB/s for each GPU: one adapter for each GPU as in
            NVIDIA's DGX machines (200 Gb/s for A100, 400 Gb/s after it); 100 Gb/s assumed for cards without NVLink.
    """

    name: str
    architecture: str
    memory_gib: float
    bandwidth: float
    bf16_tflops: float
    fp8_tflops: float | None
    fp32_tflops: float
    link: float
    network: float


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40g", "Ampere", 39.4, 1555, 312, None, 19.5, 300, 25),
        Gpu("a100-80g", "Ampere", 79.1, 2039, 312, None, 19.5, 300, 25),
        Gpu("h100-80g", "Hopper", 79.1, 3350, 989, 1979, 67, 450, 50),
        Gpu("h200-141g", "Hopper", 139.8, 4800, 989, 1979, 67, 450, 50),
        Gpu("b200", "Blackwell", 178.3, 7700, 2250, 4500, 75, 900, 50),
        Gpu("l40s", "Ada", 44.4, 864, 362, 733, 91.6, 32, 12.5),
        Gpu("rtx-4090", "Ada", 23.6, 1008, 165, 330, 82.6, 32, 12.5),
        Gpu("a6000", "Ampere", 47.5, 768, 155, None, 38.7, 32, 12.5),
    )
}
"""By name."""


def find_gpu(name: str | None) -> Gpu:
    """Return the GPU type of that name; none means h100-80g.

    Raises:
        RecipeError: There is no such type, with the names there are.
    """
    chosen = _DEFAULT if name is None else name
    if chosen not in GPUS:
        raise RecipeError(f"--gpu {chosen}: expected one of {', '.join(GPUS)}{suggest(chosen, GPUS)}")
    return GPUS[chosen]
