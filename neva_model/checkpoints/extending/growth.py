"""How many rows a model gets for the tokens of another tokenizer, and what they are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from neva_model.checkpoints.extending.new_tokens import new_tokens, pieces_of, token_rows
from neva_model.checkpoints.extending.rows import ReadRows, RowInit, new_rows
from neva_recipes.config import CheckpointError
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer

__all__ = ["Extension", "Growth", "growth_of"]

_MOST_SPARE = 2**16
"""Rows without a token that a model may get."""


@dataclass(frozen=True)
class Extension:
    """What has been written.

    Attributes:
        directory: The directory.
        tokens: The new tokens, by their ids.
        rows_before: Rows of the embedding before.
        rows: Rows of the embedding now.
        matrices: Names of the tensors that have got new rows.
        left_out: Names in the directory before that were not copied.
        padded: Rows with those that pad them for a layout; `None` for a Hugging Face directory, which has none.
    """

    directory: Path
    tokens: dict[int, str]
    rows_before: int
    rows: int
    matrices: tuple[str, ...]
    left_out: tuple[str, ...]
    padded: int | None = None


@dataclass(frozen=True)
class Growth:
    """The rows that every matrix with a row for each token gets.

    Attributes:
        tokens: The new tokens, by their ids in order.
        before: Number of rows before.
        rows: Number of rows afterwards.
        kept: The rows that have a token already, and keep their values.
        pieces: By the row of each new token, the rows of its pieces.
        spare: New rows that have no token.
    """

    tokens: dict[int, str]
    before: int
    rows: int
    kept: list[int]
    pieces: Mapping[int, list[int]]
    spare: list[int]

    def new_rows(self, read: ReadRows, init: RowInit) -> dict[int, torch.Tensor]:
        """Return the new rows of a matrix, [width] each, by their numbers.

        Args:
            read: Reads rows of the matrix.
            init: How the rows of new tokens are made.
        """
        return new_rows(read, self.kept, self.pieces, self.spare, init)


def growth_of(
    place: Path,
    before: int,
    old: LocalTokenizer,
    new: LocalTokenizer,
    folder: Path,
    *,
    least_rows: int,
    divisible_by: int,
) -> Growth:
    """Return how a model grows.

    Args:
        place: The model, for messages.
        before: Number of its rows.
        old: The tokenizer of its rows.
        new: The tokenizer that it is to have.
        folder: The directory of the new tokenizer.
        least_rows: The number of rows if the tokenizer needs fewer.
        divisible_by: What the number of rows is a multiple of.

    Raises:
        CheckpointError: There is no new token, or nearly all rows would have none.
        DataError: A token of the old tokenizer is gone or has another id.
    """
    added = new_tokens(old, new)
    if not added:
        raise CheckpointError(f"tokenizer {new.name} has no token that {place} lacks: nothing to extend")
    rows = -(-max(before, token_rows(new), least_rows) // divisible_by) * divisible_by
    if rows > before + len(added) + _MOST_SPARE:
        raise CheckpointError(
            f"{place}: would get {rows:,} rows for {before:,} and {len(added):,} new tokens: "
            f"expected at most {_MOST_SPARE:,} rows without a token (fewer --rows, a smaller --divisible-by, no gaps)"
        )
    split = pieces_of(folder, old, new)
    return Growth(
        added,
        before,
        rows,
        kept=[number for number in old.tokens.values() if number < before],
        # A tokenizer may have tokens without rows, such as one for padding.
        pieces={number: [part for part in split(token) if part < before] for number, token in added.items()},
        spare=sorted(set(range(before, rows)) - added.keys()),
    )
