"""The types of GPU for which memory and time can be estimated.

Bandwidths and peaks (without sparsity) are from NVIDIA's data sheets: A100, H100 and H200 in the SXM form, B200 on an
HGX board, L40S, and the Ada and Ampere white papers for RTX 4090 and RTX A6000 (with fp32 accumulation). The memory is
the capacity that PyTorch reports for such a card, a little less than on the data sheet.
"""

import re
from dataclasses import dataclass

from neva_recipes.config import RecipeError, suggest

__all__ = ["GPUS", "GPUS_OF_A_MACHINE", "Gpu", "find_gpu", "gpus_named"]

GPUS_OF_A_MACHINE = 8
"""GPUs of most machines with GPUs; the default in a search for a layout."""

_DEFAULT = "h100-80g"

_SIZE = re.compile(r"(?<![a-z0-9])(\d+)\s?g(?:i?b)?(?![a-z0-9])")
"""The memory in the name of a GPU: `40g`, `40GB`, `40 GiB`."""

_OF_ALL = {"nvidia", "tesla", "geforce", "rtx", "pcie", "sxm", "sxm4", "sxm5", "hbm2", "hbm2e", "hbm3", "hbm3e", "gpu"}
"""Words in names of GPUs that make no difference here."""


@dataclass(frozen=True)
class Gpu:
    """A type of GPU.

    Attributes:
        name: Its name here.
        architecture: NVIDIA's name of its generation.
        memory_gib: Memory that programs can use, in GiB.
        bandwidth: Memory bandwidth, in GB/s.
        bf16_tflops: Peak of dense bf16 matrix products, in TFLOP/s.
        fp8_tflops: The same for FP8; `None` if it has no FP8.
        fp32_tflops: Peak of fp32 products without TF32, in TFLOP/s.
        link: Bandwidth to the other GPUs of the machine in one direction, in GB/s: NVLink, or PCIe without NVLink.
        network: Bandwidth to other machines in one direction, in GB/s for each GPU: one adapter for each GPU as in
            NVIDIA's DGX machines (200 Gb/s for A100, 400 Gb/s later); 100 Gb/s assumed for cards without NVLink.
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
"""The types, by name."""


def gpus_named(name: str) -> list[Gpu]:
    """Return the types that a name may stand for, most memory first; an empty result if it names another GPU.

    The name is one of the table, the name in NVIDIA's driver, or the name on a cluster: `a100-40g`, `A100_40GB`,
    `NVIDIA A100-SXM4-40GB`. `a100` leaves the memory open.
    """
    text = name.lower()
    sizes = set(_SIZE.findall(text))
    words = {word.removeprefix("rtx") for word in re.findall(r"[a-z0-9]+", _SIZE.sub(" ", text))} - {""}
    found = [gpu for gpu in GPUS.values() if _is_called(gpu, words - _OF_ALL, sizes)]
    return sorted(found, key=lambda gpu: -gpu.memory_gib)


def _is_called(gpu: Gpu, words: set[str], sizes: set[str]) -> bool:
    own = set(_SIZE.findall(gpu.name))
    chip = set(_SIZE.sub(" ", gpu.name).replace("-", " ").split()) - _OF_ALL
    # A type without a size in its name comes in one size. A name with two sizes means a part of a GPU.
    return words == chip and len(sizes) <= 1 and (not own or sizes <= own)


def find_gpu(name: str | None, where: str = "--gpu ") -> Gpu:
    """Return the GPU type of a name, the one with the most memory if there are several; `None` means h100-80g.

    Args:
        name: As for `gpus_named`.
        where: Text before the name in the error.

    Raises:
        RecipeError: The type is unknown; the message lists the known ones.
    """
    if name is None:
        return GPUS[_DEFAULT]
    if not (found := gpus_named(name)):
        raise RecipeError(f"{where}{name}: expected one of {', '.join(GPUS)}{suggest(name.lower(), GPUS)}")
    return found[0]
