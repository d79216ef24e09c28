"""Rows of a microbatch: as long as their longest sample, rounded up."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neva_recipes.config import LlavaDataConfig, Recipe

__all__ = ["SampleLength", "mean_row_length", "row_multiple"]

_BATCHES = 24
"""Global batches that are put together to see how samples sorted by length fall into microbatches."""


@dataclass(frozen=True)
class SampleLength:
    """How long one sample is.

    Attributes:
        tokens: Tokens, those of the image included, before it is cut.
        words: Words of its turns, by which samples are sorted.
        has_image: Whether it has an image.
    """

    tokens: int
    words: int
    has_image: bool


def row_multiple(recipe: Recipe, *, on_gpu: bool) -> int:
    """Return what every row's length must be a multiple of.

    Context parallelism cuts rows in two equal chunks for each rank, sequence parallelism cuts what a rank has in equal
    parts. FP8 products need multiples of 16 in each part, mxfp8's of 32, whatever the number of rows. On GPUs products
    of multiples of 8 run on tensor cores at full speed.
    """
    parallel = recipe.parallel
    context = parallel.context_parallel_size
    tensor = parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    if recipe.precision.fp8:
        return (32 if recipe.precision.fp8_recipe == "mxfp8" else 16) * tensor * context
    chunks = 2 if context > 1 else 1
    return math.lcm(8 if on_gpu else 1, context * math.lcm(chunks, tensor))


def mean_row_length(recipe: Recipe, samples: Sequence[SampleLength]) -> float:
    """Return the mean length of the rows of microbatches, padding included, if the file is like these samples."""
    data = recipe.data
    multiple = row_multiple(recipe, on_gpu=recipe.trainer.accelerator != "cpu")

    def row(longest: SampleLength) -> int:
        return -(-min(longest.tokens, data.sequence_length) // multiple) * multiple

    if isinstance(data, LlavaDataConfig) and data.group_by_modality_length and data.dataloader_type == "cyclic":
        kinds = [[sample for sample in samples if sample.has_image is kind] for kind in (True, False)]
        weighted = 0.0
        for kind in filter(None, kinds):
            longest = [max(group, key=row) for group in _sorted_groups(kind, data)]
            weighted += len(kind) / len(samples) * sum(map(row, longest)) / len(longest)
        return weighted
    # The longest of m samples drawn from n is the k-th smallest with the chance (k/n)^m - ((k-1)/n)^m.
    rows, count = sorted(map(row, samples)), len(samples)
    edges = [(number / count) ** data.micro_batch_size for number in range(count + 1)]
    return sum(length * (above - below) for length, (below, above) in zip(rows, itertools.pairwise(edges), strict=True))


def _sorted_groups(samples: Sequence[SampleLength], data: LlavaDataConfig) -> Iterator[Sequence[SampleLength]]:
    """Yield the microbatches of some global batches, each batch of one kind of sample and sorted by words.

    A sample never stands twice in a batch, or neighbours would be more alike than they are; where there are fewer
    samples than a batch has, batches are smaller.
    """
    draw = random.Random(0)
    micro = data.micro_batch_size
    size = min(data.global_batch_size, len(samples))
    for _ in range(_BATCHES if size < len(samples) else 1):
        batch = sorted(draw.sample(samples, size), key=lambda sample: -sample.words)
        yield from (batch[start : start + micro] for start in range(0, size, micro))
