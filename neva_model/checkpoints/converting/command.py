"""`nemo-run convert SOURCE TARGET` and `nemo-run export RUN DIR`: a model in another layout."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neva_model.startup import prepare_command, prepare_conversion
from neva_recipes.storage.exports import require_new_directory
from neva_recipes.terminal import one_line, print_text

if TYPE_CHECKING:
    from neva_model.checkpoints.converting.convert import Converted

__all__ = ["main", "tell_converted"]


def main(argv: Sequence[str]) -> int:
    """Write a model in another layout.

    Args:
        argv: The run, checkpoint or directory, the directory to write, and flags.

    Returns:
        The exit code.

    Raises:
        UserError: The source cannot be read, the target cannot be written, or the layout cannot hold the model.
    """
    parser = argparse.ArgumentParser(prog="nemo-run convert", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layout")
    parser.add_argument("--tokenizer")
    parser.add_argument("--verify", action="store_true")
    given = parser.parse_args(argv)
    require_new_directory(given.directory)
    prepare_conversion()
    # Otherwise what is written needs neither Megatron-Core nor transformers, or prepares them itself.
    if given.verify:
        prepare_command()
    from neva_model.checkpoints.converting.convert import convert

    done = convert(given.run, given.directory, given.layout, tokenizer=given.tokenizer, verify=given.verify)
    tell_converted(done, given.directory)
    return 0


def tell_converted(done: "Converted", directory: Path) -> None:
    """Print what has been written, and how much the logits differ if they were compared."""
    print_text(f"wrote {one_line(str(directory))} from {one_line(str(done.source))}")
    if done.difference is not None:
        difference, largest = done.difference
        print_text(f"the logits of both differ by at most {difference:.2g}; the largest is {largest:.2g}")
