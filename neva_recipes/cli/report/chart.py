"""A chart of curves in characters: Braille dots if the terminal has them, otherwise a letter for each curve."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

__all__ = ["Series", "chart_lines", "suits_log"]

_LOG_RATIO = 20.0
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot of a Braille character (U+2800 and above), by row and column."""


@dataclass(frozen=True)
class Series:
    """A curve to draw.

    Attributes:
        steps: Its x values, ascending.
        values: Its y values.
        mark: The letter that represents it.
        colour: Code of its colour (ECMA-48, SGR).
        is_sparse: Whether its points are drawn as separate letters instead of a line.
    """

    steps: Sequence[float]
    values: Sequence[float]
    mark: str
    colour: int
    is_sparse: bool = False


def suits_log(series: Sequence[Series]) -> bool:
    """Return whether values spread so widely that a logarithmic axis shows more of them."""
    values = [value for one in series for value in one.values]
    return min(values) > 0 and max(values) / min(values) >= _LOG_RATIO


def chart_lines(
    series: Sequence[Series], width: int, height: int, *, is_log: bool, has_braille: bool, has_colour: bool
) -> list[str]:
    """Return a chart as lines.

    Args:
        series: The curves, each with at least one point; later ones are drawn over earlier ones.
        width: Columns it may take.
        height: Lines it takes.
        is_log: Whether the vertical axis is logarithmic; then all values are above zero.
        has_braille: Whether lines are drawn in Braille dots.
        has_colour: Whether each curve has its own colour.
    """
    scale = math.log10 if is_log else float
    low, high = _range(scale(value) for one in series for value in one.values)
    first, last = _range(step for one in series for step in one.steps)
    rows = height - 2
    ticks = _log_ticks(low, high, rows // 3) if is_log else _ticks(low, high, rows // 3)
    labels = _labels(ticks)
    row_of = {
        round((high - scale(tick)) / (high - low) * (rows - 1)): label
        for tick, label in zip(ticks, labels, strict=True)
    }
    margin = max(map(len, row_of.values()), default=0)
    columns = width - margin - 2
    fine = (4, 2) if has_braille else (1, 1)
    size = rows * fine[0], columns * fine[1]
    cells: dict[tuple[int, int], tuple[str, int]] = {}
    for one in series:
        points = [
            (
                round((high - scale(value)) / (high - low) * (size[0] - 1)),
                round((step - first) / (last - first) * (size[1] - 1)),
            )
            for step, value in zip(one.steps, one.values, strict=True)
        ]
        dots = points if one.is_sparse or len(points) == 1 else _line(points)
        cells |= _drawn(dots, one, fine, has_braille and not one.is_sparse)
    starts = [f"{row_of.get(row, ''):>{margin}} {'+' if row in row_of else '|'}" for row in range(rows)]
    lines = [f"{start}{_row(cells, row, columns, has_colour)}".rstrip() for row, start in enumerate(starts)]
    axis, steps = _horizontal_axis(first, last, columns)
    return [*lines, f"{'':{margin}} +{axis}", f"{'':{margin}}  {steps}".rstrip()]


def _labels(ticks: Sequence[float]) -> list[str]:
    """Return ticks as text, with as many digits as needed to distinguish them, at least four."""
    found = ([f"{tick:.{digits}g}" for tick in ticks] for digits in range(4, 18))
    return next(labels for labels in found if len(set(labels)) == len(ticks))


def _range(values: Iterator[float]) -> tuple[float, float]:
    """Return the lowest and the highest value, moved apart if they are equal."""
    found = list(values)
    low, high = min(found), max(found)
    spare = abs(low) * 0.05 or 0.5
    return (low, high) if high > low else (low - spare, high + spare)


def _line(points: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the dots of the straight lines between points."""
    yield points[0]
    for (row, column), (next_row, next_column) in pairwise(points):
        count = max(abs(next_row - row), abs(next_column - column), 1)
        for part in range(1, count + 1):
            yield round(row + (next_row - row) * part / count), round(column + (next_column - column) * part / count)


def _drawn(
    dots: Sequence[tuple[int, int]] | Iterator[tuple[int, int]], series: Series, fine: tuple[int, int], in_dots: bool
) -> dict[tuple[int, int], tuple[str, int]]:
    """Return the characters of a curve and their colour, by row and column."""
    bits: dict[tuple[int, int], int] = {}
    for row, column in dots:
        cell = row // fine[0], column // fine[1]
        bits[cell] = bits.get(cell, 0) | (_BRAILLE[row % 4][column % 2] if in_dots else 0)
    return {cell: (chr(0x2800 + found) if in_dots else series.mark, series.colour) for cell, found in bits.items()}


def _row(cells: dict[tuple[int, int], tuple[str, int]], row: int, columns: int, has_colour: bool) -> str:
    found = [cells.get((row, column), (" ", 0)) for column in range(columns)]
    if not has_colour:
        return "".join(character for character, _ in found)
    parts = []
    for colour, group in groupby(found, key=lambda cell: cell[1]):
        text = "".join(character for character, _ in group)
        parts.append(f"\x1b[{colour}m{text}\x1b[0m" if colour else text)
    return "".join(parts)


def _horizontal_axis(first: float, last: float, columns: int) -> tuple[str, str]:
    axis, labels = ["-"] * columns, ""
    for tick in _ticks(first, last, columns // 12, least=1):
        column = round((tick - first) / (last - first) * (columns - 1))
        text = f"{tick:,.0f}"
        start = min(max(0, column - len(text) // 2), columns - len(text))
        if start > len(labels) or not labels:
            axis[column] = "+"
            labels = f"{labels:<{start}}{text}"
    return "".join(axis), labels


def _ticks(low: float, high: float, count: int, least: float = 0.0) -> list[float]:
    """Return about `count` round numbers in a range, no closer to each other than `least`."""
    raw = max(least, (high - low) / max(1, count))
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return powers of ten in a range of exponents, and if there is room also twice and five times these."""
    exponents = range(math.floor(low), math.ceil(high) + 1)
    for factors, every in (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 5), ((1,), 20)):
        found = [factor * 10.0**exponent for exponent in exponents if exponent % every == 0 for factor in factors]
        found = [tick for tick in found if low - 1e-9 <= math.log10(tick) <= high + 1e-9]
        if len(found) <= max(2, count):
            break
    return found
