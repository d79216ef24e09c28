"""The values of new rows, computed from the old rows of the same matrix."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch

__all__ = ["RowInit", "new_rows"]

RowInit = Literal["pieces", "mean", "zero"]
"""Mean of the rows of the pieces that the old tokenizer splits a token into; mean of all rows; zeros, as NeMo does."""

_AT_ONCE = 8192
"""Rows that are read at once, so that the matrix is never in memory."""

ReadRows = Callable[[int, int], torch.Tensor]
"""Returns the rows from one number up to another, [rows, width]."""


def new_rows(
    read: ReadRows, old: Iterable[int], pieces: Mapping[int, list[int]], spare: Iterable[int], init: RowInit
) -> dict[int, torch.Tensor]:
    """Return the new rows of a matrix, [width] each, by their numbers.

    A row without a token is the mean of the others whatever `init` is: so its logit is never the largest, and greedy
    decoding never picks it.

    Args:
        read: Reads rows of the matrix.
        old: The rows that have tokens.
        pieces: By the row of each new token, the rows of its pieces.
        spare: New rows that have no token.
        init: How the rows of new tokens are made.
    """
    kept = sorted(set(old))
    mean, dtype = _mean(read, kept)
    rows = dict.fromkeys(spare, mean.to(dtype))
    for number, parts in pieces.items():
        if init == "zero":
            row = torch.zeros_like(mean)
        elif init == "mean" or not parts:
            row = mean
        else:
            row = torch.stack([read(part, part + 1)[0].double() for part in parts]).mean(0)
        rows[number] = row.to(dtype)
    return rows


def _mean(read: ReadRows, kept: list[int]) -> tuple[torch.Tensor, torch.dtype]:
    """Return the mean of some rows in double precision, and the type of the matrix."""
    first = read(0, 1)
    total = torch.zeros(first.shape[1], dtype=torch.float64)
    wanted = torch.zeros(kept[-1] + 1, dtype=torch.bool)
    wanted[kept] = True
    for begin in range(0, len(wanted), _AT_ONCE):
        end = min(begin + _AT_ONCE, len(wanted))
        total += read(begin, end)[wanted[begin:end]].double().sum(0)
    return total / len(kept), first.dtype
