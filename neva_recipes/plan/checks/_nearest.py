"""The nearest numbers that would work."""

from collections.abc import Callable

__all__ = ["nearest", "nearest_divisors", "nearest_multiples"]


def nearest(value: int, works: Callable[[int], bool], lowest: int = 1, highest: int = 1 << 20) -> list[int]:
    """Return the nearest working number below `value` and the nearest one above it, where there are such.

    Args:
        value: The number that does not work.
        works: Whether a number does.
        lowest: Smallest number tried.
        highest: Largest number tried.
    """
    below = next((number for number in range(min(value - 1, highest), lowest - 1, -1) if works(number)), None)
    above = next((number for number in range(max(value + 1, lowest), highest + 1) if works(number)), None)
    return [number for number in (below, above) if number is not None]


def nearest_divisors(value: int, number: int, highest: int | None = None) -> list[int]:
    """Return the divisors of `number` next to `value`, below and above."""
    return nearest(value, lambda divisor: number % divisor == 0, highest=min(number, highest or number))


def nearest_multiples(value: int, factor: int) -> list[int]:
    """Return the positive multiples of `factor` next to `value`, below and above."""
    below = value // factor * factor
    return [multiple for multiple in (below, below + factor) if multiple > 0 and multiple != value]
