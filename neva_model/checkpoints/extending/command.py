"""`nemo-run extend-vocab MODEL OUT --tokenizer T`: rows for the tokens that a tokenizer has got."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from neva_model.startup import prepare_command
from neva_recipes.config import how_many
from neva_recipes.plan.huggingface import is_huggingface
from neva_recipes.terminal import one_line, print_text, tell

__all__ = ["main"]

_SHOWN = 8
"""New tokens that are listed."""


def main(argv: Sequence[str]) -> int:
    """Write a Hugging Face directory or a checkpoint with a row for every token of a tokenizer.

    Args:
        argv: The directory, run or checkpoint, the directory to write, and flags.

    Returns:
        The exit code.

    Raises:
        UserError: The model, the tokenizer or the target cannot be used.
    """
    parser = argparse.ArgumentParser(prog="nemo-run extend-vocab", allow_abbrev=False)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--init", choices=("pieces", "mean", "zero"), default="pieces")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--divisible-by", type=int, default=1)
    given = parser.parse_args(argv)
    prepare_command()
    from neva_model.checkpoints.extending.checkpoint import extend_checkpoint
    from neva_model.checkpoints.extending.extend import extend_vocabulary

    extend = extend_vocabulary if is_huggingface(given.source) else extend_checkpoint
    done = extend(
        given.source,
        given.target,
        given.tokenizer,
        init=given.init,
        least_rows=given.rows,
        divisible_by=given.divisible_by,
    )
    made = {"pieces": "the mean of the rows of their pieces", "mean": "the mean of all rows", "zero": "zeros"}
    added = how_many(len(done.tokens), "new token")
    padded = "" if done.padded is None else f", padded to {done.padded:,}"
    print_text(
        f"wrote {one_line(str(done.directory))}: {added}, {done.rows:,} rows, {done.rows_before:,} before{padded}"
    )
    print_text(f"new rows of {' and '.join(done.matrices)} are {made[given.init]}")
    for number, token in list(done.tokens.items())[:_SHOWN]:
        print_text(f"    {number}  {one_line(token)}")
    if len(done.tokens) > _SHOWN:
        print_text(f"    and {len(done.tokens) - _SHOWN} more")
    if done.left_out:
        tell("note", f"not copied: {', '.join(done.left_out)}")
    return 0
