"""Decodes images before training, so that a damaged one does not show hours later: as many as some seconds allow."""

import os
import random
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from neva_model.data.images.reading import decode_image
from neva_recipes.config import DataError

__all__ = ["Decoded", "decode_images"]

_SECONDS = 10.0
"""Time for the images of a data file: thousands on any machine, and little beside a training on more of them."""

_TOGETHER = 16
"""Number of files that a thread decodes at a time."""


@dataclass
class Decoded:
    """What decoding images has shown.

    Attributes:
        number: How many images were decoded; fewer than there are if the time was over.
        damaged: Which of the images cannot be used.
    """

    number: int = 0
    damaged: list[int] = field(default_factory=list)


def decode_images(total: int, path_of: Callable[[int], Path], tell: Callable[[str], None]) -> Decoded:
    """Decode images in an order that spreads over all of them, until all are decoded or the time is over.

    Args:
        total: How many images there are.
        path_of: Returns the path of an image by its number, from 0.
        tell: Called again and again with how far it has got.
    """
    end = time.monotonic() + _SECONDS
    order = random.Random(0).sample(range(total), total)
    blocks = [order[start : start + _TOGETHER] for start in range(0, len(order), _TOGETHER)]

    def decode(block: list[int]) -> Decoded:
        seen = Decoded()
        for which in block:
            if time.monotonic() > end:
                break
            seen.number += 1
            try:
                decode_image(path_of(which))
            except DataError:
                seen.damaged.append(which)
        return seen

    decoded = Decoded()
    # A filter of each thread would come off in the order in which the threads end, and change those of the others.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        for seen in pool.map(decode, blocks):
            decoded.number += seen.number
            decoded.damaged += seen.damaged
            tell(f"{decoded.number:,} images decoded")
    return decoded
