"""Rows of a micro batch: as long as its longest sample, rounded up."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neva_recipes.config import LlavaDataConfig, Recipe
from neva_recipes.prompts.extent import PromptExtent

__all__ = ["SampleLength", "mean_row_length", "row_multiple"]

_BATCHES = 24
"""Number of global batches drawn to find out how samples sorted by length are distributed over micro batches."""


@dataclass(frozen=True)
class SampleLength:
    """The length of one sample.

    Attributes:
        prompt: Its tokens, before it is cut.
        words: Words of its turns, by which samples are sorted.
        has_image: Whether it has an image.
    """

    prompt: PromptExtent
    words: int
    has_image: bool

    @property
    def tokens(self) -> int:
        """Number of tokens, including those of the image, before it is cut."""
        return self.prompt.length


def row_multiple(recipe: Recipe, *, on_gpu: bool) -> int:
    """Return the number that the length of every row must be a multiple of.

    Context parallelism cuts rows into two equal chunks for each rank; sequence parallelism cuts a rank's tokens into
    equal parts. FP8 products need multiples of 16 in each part, mxfp8 of 32, whatever the number of rows. On GPUs,
    products with multiples of 8 run on tensor cores at full speed.
    """
    parallel = recipe.parallel
    context = parallel.context_parallel_size
    tensor = parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    if recipe.precision.fp8:
        return (32 if recipe.precision.fp8_recipe == "mxfp8" else 16) * tensor * context
    chunks = 2 if context > 1 else 1
    return math.lcm(8 if on_gpu else 1, context * math.lcm(chunks, tensor))


def mean_row_length(recipe: Recipe, samples: Sequence[SampleLength]) -> float:
    """Return the mean length of the rows of micro batches, with padding, if these samples represent the file."""
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
    # The longest of m samples drawn from n is the k-th smallest with probability (k/n)^m - ((k-1)/n)^m.
    rows, count = sorted(map(row, samples)), len(samples)
    edges = [(number / count) ** data.micro_batch_size for number in range(count + 1)]
    return sum(length * (above - below) for length, (below, above) in zip(rows, itertools.pairwise(edges), strict=True))


def _sorted_groups(samples: Sequence[SampleLength], data: LlavaDataConfig) -> Iterator[Sequence[SampleLength]]:
    """Yield the micro batches of some global batches; each batch has one kind of sample, sorted by words.

    A sample appears only once in a batch, since neighbours would otherwise be too similar. With fewer samples than a
    batch has, batches are smaller.
    """
    draw = random.Random(0)
    micro = data.micro_batch_size
    size = min(data.global_batch_size, len(samples))
    for _ in range(_BATCHES if size < len(samples) else 1):
        batch = sorted(draw.sample(samples, size), key=lambda sample: -sample.words)
        yield from (batch[start : start + micro] for start in range(0, size, micro))
