"""`nemo-run export RUN DIR`: writes a trained model as a Hugging Face directory."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from neva_model.startup import prepare_conversion
from neva_recipes.storage.exports import require_new_directory

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Export a run's newest checkpoint, or a given checkpoint.

    Args:
        argv: The run or checkpoint, and the directory to write.

    Returns:
        The exit code.

    Raises:
        UserError: The checkpoint cannot be loaded, or the directory cannot be written.
    """
    parser = argparse.ArgumentParser(prog="nemo-run export", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokenizer")
    arguments = parser.parse_args(argv)
    require_new_directory(arguments.directory)
    prepare_conversion()
    from neva_model.checkpoints.converting.convert import convert

    done = convert(arguments.run, arguments.directory, "transformers", tokenizer=arguments.tokenizer)
    print(f"wrote {arguments.directory} from {done.source}")
    return 0
