"""`nemo-run export RUN DIR`: a trained model as a Hugging Face directory."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from neva_model.startup import prepare_command
from neva_recipes.config import CheckpointError

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
    arguments = parser.parse_args(argv)
    if arguments.directory.exists():
        raise CheckpointError(f"{arguments.directory}: exists already; name a directory that does not")
    prepare_command()
    import torch

    from neva_model.checkpoints.huggingface.export import export_huggingface
    from neva_model.checkpoints.information import saved_recipe
    from neva_model.checkpoints.load import load_model

    loaded = load_model(arguments.run)
    # On a CPU the model was loaded in fp32; its weights still are what the training kept of them.
    trained_in_bf16 = saved_recipe(loaded.source).precision.precision == "bf16"
    dtype = torch.bfloat16 if trained_in_bf16 else torch.float32
    export_huggingface(loaded.model, loaded.recipe, loaded.tokenizer, arguments.directory, dtype=dtype)
    print(f"wrote {arguments.directory} from {loaded.source}")
    return 0
