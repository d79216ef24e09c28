"""`nemo-run export RUN DIR`: writes a trained model as a Hugging Face directory."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from neva_model.startup import prepare_command
from neva_recipes.config import tokenizer_name
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
    prepare_command()
    from neva_model.checkpoints.information import with_newest

    def export(checkpoint: Path) -> Path:
        _export(checkpoint, arguments.tokenizer, arguments.directory)
        return checkpoint

    print(f"wrote {arguments.directory} from {with_newest(arguments.run, export)}")
    return 0


def _export(checkpoint: Path, tokenizer: str | None, directory: Path) -> None:
    import torch

    from neva_model.checkpoints.huggingface.export import export_huggingface
    from neva_model.checkpoints.information import read_information
    from neva_model.checkpoints.vocabulary import recipe_with_tokenizer
    from neva_model.checkpoints.weights import CheckpointWeights

    recipe, _ = recipe_with_tokenizer(checkpoint, read_information(checkpoint), tokenizer)
    weights = CheckpointWeights(checkpoint, recipe)
    # Averaged weights are kept in fp32.
    dtype = torch.bfloat16 if recipe.precision.precision == "bf16" else torch.float32
    export_huggingface(weights, recipe, tokenizer_name(recipe), directory, dtype=dtype, checkpoint=checkpoint)
