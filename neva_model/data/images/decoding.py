"""Decodes images before training, so that a damaged one does not show hours later: as many as some seconds allow."""

import os
import random
import time
import warnings
from collections.abc import Callable, Sequence
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


def decode_images(paths: Sequence[Callable[[], Path]], tell: Callable[[str], None]) -> Decoded:
    """Decode images in an order that spreads over all of them, until all are decoded or the time is over.

    Args:
        paths: Returns the path of each image.
        tell: Called again and again with how far it has got.
    """
    end = time.monotonic() + _SECONDS
    order = random.Random(0).sample(range(len(paths)), len(paths))
    blocks = [order[start : start + _TOGETHER] for start in range(0, len(order), _TOGETHER)]

    def decode(block: list[int]) -> Decoded:
        seen = Decoded()
        for which in block:
            if time.monotonic() > end:
                break
            seen.number += 1
            try:
                decode_image(paths[which]())
            except DataError:
                seen.damaged.append(which)
        return seen

    total = Decoded()
    # A filter of each thread would come off in the order in which the threads end, and change those of the others.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        for seen in pool.map(decode, blocks):
            total.number += seen.number
            total.damaged += seen.damaged
            tell(f"{total.number:,} images decoded")
    return total
