"""New rows for new tokens: `nemo-run extend-vocab MODEL OUT --tokenizer T`."""

import importlib
from collections.abc import Sequence
from functools import partial

from neva_recipes.cli.arguments import StrictParser, add_runs_dir, path_argument, whole_number
from neva_recipes.cli.commands.models.tools import model_path, require_single
from neva_recipes.config import Positive

__all__ = ["extend_vocab_command"]


def extend_vocab_command(argv: Sequence[str]) -> int:
    """Write a language model with a row for every token of another tokenizer."""
    parser = StrictParser(
        "nemo-run extend-vocab",
        description=(
            "Give a language model a row for every token that another tokenizer has more\n"
            "than its own. Its old rows stay as they are, byte for byte. A checkpoint loses\n"
            "its optimizer."
        ),
    )
    parser.add_argument("source", metavar="MODEL", help="Hugging Face directory, run or checkpoint")
    parser.add_argument("target", metavar="OUT", type=path_argument, help="directory to write; must not exist yet")
    parser.add_argument(
        "--tokenizer", metavar="T", required=True, help="the tokenizer: directory, hub name or .model file"
    )
    parser.add_argument(
        "--init",
        metavar="I",
        choices=("pieces", "mean", "zero"),
        default="pieces",
        help="new rows: mean of the rows of their pieces, mean of all, zero (pieces)",
    )
    positive = partial(whole_number, kind=Positive)
    parser.add_argument(
        "--rows", metavar="N", type=positive, default=1, help="least number of rows (one for each token)"
    )
    parser.add_argument("--divisible-by", metavar="N", type=positive, default=1, help="make the rows a multiple (1)")
    add_runs_dir(parser)
    given = parser.parse(argv)
    source = model_path(given.source, given.runs_dir)
    require_single(given.source, source)
    words = [
        f"--tokenizer={given.tokenizer}",
        f"--init={given.init}",
        f"--rows={given.rows}",
        f"--divisible-by={given.divisible_by}",
    ]
    module = importlib.import_module("neva_model.checkpoints.extending.command")
    code: int = module.main([*words, "--", source, str(given.target)])
    return code
