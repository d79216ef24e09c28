"""The order of samples: a pure function of the seed and of the number of samples that the run has consumed.

A resumed run need not replay anything, and a global batch holds the same samples however it is divided over ranks.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neva_recipes.config import DataError

__all__ = ["CyclicOrder", "GroupedOrder", "MicrobatchSampler", "SampleOrder", "SequentialOrder"]

Positions = NDArray[np.int64]
"""Positions of samples in the data file."""


class SampleOrder(Protocol):
    """Decides which samples each global batch holds."""

    def global_batch(self, consumed_samples: int, size: int) -> Positions | None:
        """Return the samples of the batch that follows `consumed_samples`, or `None` if there are no more."""


class _Shuffled:
    """Endless epochs over some samples, each shuffled anew, without gaps or repetitions between them."""

    def __init__(self, samples: Positions, seed: int) -> None:
        self._samples = samples
        self._seed = seed
        self._epoch = -1
        self._permuted = samples

    def take(self, start: int, count: int) -> Positions:
        """Return `count` samples of the endless sequence, beginning with element `start`."""
        parts: list[Positions] = []
        while count:
            epoch, offset = divmod(start, len(self._samples))
            part = self._permutation(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else self._samples[:0]

    def _permutation(self, epoch: int) -> Positions:
        if epoch != self._epoch:
            # Raw random numbers are the same in every version of NumPy; its shuffling functions need not be.
            key = np.array([self._seed % 2**64, epoch], dtype=np.uint64)
            keys = np.random.Philox(key=key).random_raw(len(self._samples))
            self._epoch, self._permuted = epoch, self._samples[np.argsort(keys, kind="stable")]
        return self._permuted


class CyclicOrder:
    """Every sample once per epoch, shuffled anew in each epoch, endlessly; a batch may span two epochs."""

    def __init__(self, num_samples: int, seed: int) -> None:
        """Order `num_samples` samples by `seed`."""
        self._shuffled = _Shuffled(np.arange(num_samples), seed)

    def global_batch(self, consumed_samples: int, size: int) -> Positions:
        """Return the samples of the batch that follows `consumed_samples`."""
        return self._shuffled.take(consumed_samples, size)


class SequentialOrder:
    """One pass in the order of the file; samples that don't fill the last batch are left out."""

    def __init__(self, num_samples: int) -> None:
        """Order `num_samples` samples."""
        self._num_samples = num_samples

    def global_batch(self, consumed_samples: int, size: int) -> Positions | None:
        """Return the samples of the batch that follows `consumed_samples`, or `None` at the end."""
        end = consumed_samples + size
        return np.arange(consumed_samples, end) if end <= self._num_samples else None


class GroupedOrder:
    """Batches of one modality, sorted by length, so that micro batches need little padding.

    Image samples and text-only samples form two endless shuffled sequences. Batch b is a text batch if it increases the
    number of text batches due, (b + 1) * texts / samples rounded down. So text batches are spread evenly, and every
    sample comes once in each epoch of its own kind.
    """

    def __init__(self, has_image: NDArray[np.bool_], lengths: NDArray[np.int32], seed: int) -> None:
        """Order the samples of a file.

        Args:
            has_image: Whether each sample has an image. [samples]
            lengths: Estimated lengths. [samples]
            seed: Seed of the shuffling.
        """
        self._lengths = lengths
        self._images = _Shuffled(np.flatnonzero(has_image), seed)
        self._texts = _Shuffled(np.flatnonzero(~has_image), seed)
        self._num_texts = int(np.count_nonzero(~has_image))
        self._num_samples = len(has_image)

    def global_batch(self, consumed_samples: int, size: int) -> Positions:
        """Return the samples of the batch that follows `consumed_samples`, longest first.

        Raises:
            DataError: The run has consumed a number of samples that is not a whole number of batches.
        """
        batch, rest = divmod(consumed_samples, size)
        if rest:
            raise DataError(
                f"{consumed_samples} samples consumed are not a whole number of batches of {size}: with "
                "data.group_by_modality_length=true a run must resume with the same data.global_batch_size"
            )
        texts_before, texts_after = (number * self._num_texts // self._num_samples for number in (batch, batch + 1))
        if texts_after > texts_before:
            chosen = self._texts.take(texts_before * size, size)
        else:
            chosen = self._images.take((batch - texts_before) * size, size)
        return chosen[np.argsort(-self._lengths[chosen], kind="stable")]


class MicrobatchSampler:
    """Yields the positions of each micro batch of one data-parallel rank, step after step.

    A global batch is cut into micro batches that are dealt to the ranks in turn. So the micro batches are the same for
    any number of ranks, and if the batch is sorted, ranks have micro batches of similar length at the same time.
    """

    def __init__(
        self,
        order: SampleOrder,
        *,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        ranks: int,
        consumed_samples: int,
    ) -> None:
        """Take one rank's share.

        Args:
            order: Determines the samples of each global batch.
            global_batch_size: Samples of a batch; a multiple of `micro_batch_size * ranks`.
            micro_batch_size: Samples of a micro batch.
            rank: This data-parallel rank.
            ranks: Number of data-parallel ranks.
            consumed_samples: Samples that all ranks together have already consumed.
        """
        self._order = order
        self._global = global_batch_size
        self._micro = micro_batch_size
        self._rank = rank
        self._ranks = ranks
        self._consumed = consumed_samples

    def __iter__(self) -> Iterator[list[int]]:
        consumed = self._consumed
        while (batch := self._order.global_batch(consumed, self._global)) is not None:
            for share in batch.reshape(-1, self._ranks, self._micro)[:, self._rank]:
                yield share.tolist()
            consumed += self._global
