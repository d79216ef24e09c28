"""Shows samples as a model sees them: `nemo-run data preview FILE --tokenizer T`."""

import argparse
from collections.abc import Sequence

from neva_recipes.cli.arguments import StrictParser, UsageError, path_argument, whole_number
from neva_recipes.cli.commands.data._options import add_prompt_options
from neva_recipes.cli.commands.data._outputs import require_folder, require_outputs, write_output
from neva_recipes.config import Positive, VisionConfig
from neva_recipes.data_tools.check import require_content
from neva_recipes.data_tools.page import matplotlib_classes
from neva_recipes.data_tools.preview.page import samples_to_html, samples_to_png
from neva_recipes.data_tools.preview.samples import seen_samples
from neva_recipes.data_tools.preview.text import samples_to_text
from neva_recipes.families import image_length
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.terminal import print_document, shows_colour
from neva_recipes.tokenizers import find_tokenizer

__all__ = ["preview_action"]

_MOST = 100


def preview_action(argv: Sequence[str]) -> int:
    """Show the first samples of a file as a model sees them: `nemo-run data preview FILE --tokenizer T`."""
    given = _parser().parse(argv)
    _require(given)
    tokenizer = read_tokenizer(find_tokenizer(str(given.tokenizer)))
    if tokenizer is None:
        raise UsageError(f"--tokenizer {given.tokenizer}: expected tokenizer.json, or a SentencePiece model")
    samples = seen_samples(
        given.file,
        given.n,
        tokenizer=tokenizer,
        template=given.template,
        tokens_per_image=image_length(VisionConfig()),
        sequence_length=given.sequence_length,
        image_folder=given.image_folder,
    )
    print_document(samples_to_text(samples, has_colour=shows_colour()))
    if given.html is not None:
        below = f"{given.file}, template {given.template}, tokenizer {given.tokenizer}; what carries loss is coloured"
        write_output(given.html, samples_to_html(samples, below).encode())
    if given.png is not None:
        write_output(given.png, samples_to_png(samples))
    return 0


def _parser() -> StrictParser:
    parser = StrictParser(
        "nemo-run data preview",
        description=(
            "Show the first samples of a file as a model sees them: the text of their tokens.\n"
            "What carries loss is coloured at a terminal, and stands in [[ ]] elsewhere."
        ),
    )
    parser.add_argument("file", metavar="FILE", type=path_argument, help="JSON array, or JSON lines")
    parser.add_argument("--tokenizer", metavar="T", type=path_argument, help="the model's tokenizer, as data.tokenizer")
    add_prompt_options(parser)
    parser.add_argument(
        "-n", metavar="N", type=lambda text: whole_number(text, Positive), default=8, help="number of samples (8)"
    )
    parser.add_argument("--image-folder", metavar="D", type=path_argument, help="show the images in this folder")
    parser.add_argument("--html", metavar="FILE", type=path_argument, help="write a page too, with the pictures")
    parser.add_argument("--png", metavar="FILE", type=path_argument, help="write a picture too")
    return parser


def _require(given: argparse.Namespace) -> None:
    """Refuse what cannot be done before anything is read."""
    if given.tokenizer is None:
        raise UsageError("--tokenizer is missing: name that of the model, as data.tokenizer does")
    if given.n > _MOST:
        raise UsageError(f"-n {given.n}: expected at most {_MOST}")
    require_folder("--image-folder", given.image_folder)
    require_outputs([given.html, given.png])
    if given.png is not None:
        matplotlib_classes()
    require_content(given.file)
