"""`nemo-run reshard CKPT OUT --tp N --pp N`: a checkpoint as another layout would have saved it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from neva_model.startup import prepare_conversion
from neva_recipes.storage.exports import require_new_directory
from neva_recipes.terminal import one_line, print_text

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write a checkpoint under another layout.

    Args:
        argv: The run or checkpoint, the directory to write, and flags.

    Returns:
        The exit code.

    Raises:
        UserError: The checkpoint cannot be read, the layout does not divide its model, or the directory cannot be
            written.
    """
    parser = argparse.ArgumentParser(prog="nemo-run reshard", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--pp", type=int, default=1)
    parser.add_argument("--weights-only", action="store_true")
    given = parser.parse_args(argv)
    require_new_directory(given.directory)
    prepare_conversion()
    from neva_model.checkpoints.resharding.reshard import reshard

    done = reshard(given.run, given.directory, given.tp, given.pp, weights_only=given.weights_only)
    held = "weights and optimizer" if done.has_optimizer else "weights without an optimizer"
    layout = f"TP{given.tp} x PP{given.pp}"
    print_text(f"wrote {one_line(str(given.directory))} from {one_line(str(done.source))}: {held} as {layout}")
    return 0
