"""The figures of a check: histograms, shares and quantiles of what was counted."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from neva_recipes.data_tools.settings import Counts, Settings

__all__ = ["Bin", "Histogram", "histograms", "share", "sizes"]

_BINS = 12
_STEPS = (1, 2, 5)


class Bin(NamedTuple):
    """A bin of a histogram.

    Attributes:
        least: The least value in it.
        most: The greatest value in it; `None` if there is no bound.
        number: How many values it has.
    """

    least: int
    most: int | None
    number: int

    @property
    def label(self) -> str:
        """Its values, as text."""
        if self.most is None:
            return f"{self.least:,} and more"
        return f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"


class Histogram(NamedTuple):
    """How often something has each value.

    Attributes:
        name: Its name in JSON.
        title: What is counted.
        bins: The bins, from the least value on.
        mean: The mean value.
        median: The value that half of all are not above.
        most: The greatest value.
    """

    name: str
    title: str
    bins: tuple[Bin, ...]
    mean: float
    median: int
    most: int

    @property
    def summary(self) -> str:
        """Mean, median and greatest value, as text."""
        return f"mean {self.mean:,.1f}, median {self.median:,}, most {self.most:,}"


def histograms(counts: Counts, settings: Settings) -> Iterator[Histogram]:
    """Yield the histograms of what was counted; without samples that can be read there is none."""
    by = "" if settings.tokenizer is not None else ", estimated at 4 characters each"
    for name, title, counted in (
        ("lengths", f"tokens of a sample, image included{by}", counts.lengths),
        ("image_tokens", "image tokens of a sample", counts.image_tokens),
        ("turns", "turns of a conversation", counts.turns),
        ("words", "words of an answer", counts.words),
    ):
        if counted:
            total = counted.total()
            mean = sum(value * count for value, count in counted.items()) / total
            yield Histogram(name, title, tuple(_bins(counted)), mean, _quantile(counted, 0.5), max(counted))


def _quantile(counted: Counter[int], part: float) -> int:
    """Return the least value that this part of all values is not above."""
    left = math.ceil(part * counted.total())
    for value in sorted(counted):
        left -= counted[value]
        if left <= 0:
            return value
    raise AssertionError("a part is at most 1")


def _bins(counted: Counter[int]) -> Iterator[Bin]:
    """Yield bins of one width, and a last one for the greatest hundredth where it is far away."""
    if len(counted) <= 3:
        yield from (Bin(value, value, counted[value]) for value in sorted(counted))
        return
    least, high = min(counted), _quantile(counted, 0.99)
    width = _width(high - least + 1)
    begin = least // width * width
    number = (high - begin) // width + 1
    sums = Counter[int]()
    for value, count in counted.items():
        sums[min((value - begin) // width, number)] += count
    for place in range(number):
        start = begin + place * width
        yield Bin(start, start + width - 1, sums[place])
    if sums[number]:
        yield Bin(begin + number * width, None, sums[number])


def _width(extent: int) -> int:
    """Return a round width with which a histogram has at most `_BINS` bins."""
    power = 1
    while True:
        for step in _STEPS:
            if step * power * (_BINS - 1) >= extent:
                return step * power
        power *= 10


def share(some: int, total: int) -> str:
    """Return a share in percent, as text: none and all only if it is so."""
    if not total or some in (0, total):
        return "0 %" if not some else "100 %"
    return f"{min(max(100 * some / total, 0.01), 99.99):.2f} %"


def sizes(counts: Counts, settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what was counted, each with its name, as text."""
    text_only = counts.samples - counts.with_image
    read = counts.lengths.total()
    yield "samples", f"{counts.samples:,}"
    yield "usable", f"{counts.usable:,} ({share(counts.usable, counts.samples)})"
    yield "with an image", f"{counts.with_image:,} ({share(counts.with_image, counts.samples)})"
    yield "text only", f"{text_only:,} ({share(text_only, counts.samples)})"
    at = f"cut at {settings.sequence_length:,} tokens"
    yield at, f"{counts.cut:,} ({share(counts.cut, read)} of the readable)"
