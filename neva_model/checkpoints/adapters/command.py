"""`nemo-run merge RUN DIR`: a model with adapters as one without."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from neva_model.checkpoints.converting.command import tell_converted
from neva_model.startup import prepare_command
from neva_recipes.config import CheckpointError
from neva_recipes.storage.exports import require_new_directory

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Merge the adapters of a run's newest checkpoint, or of a given one, into the weights that they stand beside.

    Args:
        argv: The run or checkpoint, the directory to write, and flags.

    Returns:
        The exit code.

    Raises:
        UserError: There are no adapters, the weights beside them are not there any more, or the directory cannot be
            written.
    """
    parser = argparse.ArgumentParser(prog="nemo-run merge", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layout", default="transformers")
    parser.add_argument("--tokenizer")
    parser.add_argument("--verify", action="store_true")
    given = parser.parse_args(argv)
    require_new_directory(given.directory)
    prepare_command()
    from neva_model.checkpoints.converting.convert import convert
    from neva_model.checkpoints.huggingface import is_huggingface_directory
    from neva_model.checkpoints.information import resolve_checkpoint, saved_recipe

    if is_huggingface_directory(given.run) or not saved_recipe(resolve_checkpoint(given.run)).model.is_saved_in_part:
        raise CheckpointError(f"{given.run}: has no adapters to merge: nemo-run export or convert writes its model")
    done = convert(given.run, given.directory, given.layout, tokenizer=given.tokenizer, verify=given.verify)
    tell_converted(done, given.directory)
    return 0
