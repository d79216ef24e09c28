"""`nemo-run export RUN DIR`: writes a trained model as a Hugging Face directory."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from neva_model.startup import prepare_command
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
    import torch

    from neva_model.checkpoints.huggingface.export import export_huggingface
    from neva_model.checkpoints.information import saved_recipe
    from neva_model.checkpoints.load import load_model

    loaded = load_model(arguments.run, arguments.tokenizer)
    # On a CPU the model was loaded in fp32, but its weights are those that the training saved.
    trained_in_bf16 = saved_recipe(loaded.source).precision.precision == "bf16"
    dtype = torch.bfloat16 if trained_in_bf16 else torch.float32
    model, recipe, tokenizer = loaded.model, loaded.recipe, loaded.tokenizer
    export_huggingface(model, recipe, tokenizer, arguments.directory, dtype=dtype, checkpoint=loaded.source)
    print(f"wrote {arguments.directory} from {loaded.source}")
    return 0
