"""Says what a model on the disk is: `nemo-run inspect CHECKPOINT|DIR`."""

import json
from collections.abc import Sequence
from pathlib import Path

from neva_recipes.cli.arguments import StrictParser, add_runs_dir
from neva_recipes.cli.commands.models.tools import model_path, require_single
from neva_recipes.terminal import print_text

__all__ = ["inspect_command"]


def inspect_command(argv: Sequence[str]) -> int:
    """Print what a checkpoint or a Hugging Face directory holds, and what it can be used for."""
    parser = StrictParser(
        "nemo-run inspect",
        description=(
            "What a model on the disk is: its architecture, layout, step, parameters by part,\n"
            "types, vocabulary, and what it can be used for. Nothing is loaded: the\n"
            "descriptions and the headers of the weights are read."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="name of a run, or a run, checkpoint or Hugging Face directory")
    parser.add_argument("--tensors", action="store_true", help="list every tensor with its type and shape")
    parser.add_argument("--format", metavar="F", choices=("text", "json"), default="text", help="text or json (text)")
    add_runs_dir(parser)
    arguments = parser.parse(argv)
    path = model_path(arguments.run, arguments.runs_dir)
    require_single(arguments.run, path)

    from neva_recipes.inspection.stored import (
        holds_only_tokenizer,
        read_checkpoint,
        read_huggingface,
        read_stored_tokenizer,
        stored_lines,
    )
    from neva_recipes.plan.huggingface import is_huggingface

    place = Path(path)
    if is_huggingface(place):
        model = read_huggingface(place)
    else:
        model = read_stored_tokenizer(place) if holds_only_tokenizer(place) else read_checkpoint(place)
    if arguments.format == "json":
        print(json.dumps(model.to_plain(with_tensors=arguments.tensors), indent=2, allow_nan=False))
        return 0
    for line in stored_lines(model, with_tensors=arguments.tensors):
        print_text(line)
    return 0
