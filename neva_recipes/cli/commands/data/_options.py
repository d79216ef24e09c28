"""The options by which commands make prompts as a recipe does."""

from typing import get_args

from neva_recipes.cli.arguments import StrictParser, whole_number
from neva_recipes.config import ConvTemplate, LlavaDataConfig, Positive

__all__ = ["add_prompt_options"]


def add_prompt_options(parser: StrictParser) -> None:
    """Add the template and the length of the sequences."""
    parser.add_argument(
        "--template", metavar="N", choices=get_args(ConvTemplate), default="v1", help="data.conv_template (v1)"
    )
    parser.add_argument(
        "--sequence-length",
        metavar="N",
        type=lambda text: whole_number(text, Positive),
        default=LlavaDataConfig.sequence_length,
        help=f"data.sequence_length ({LlavaDataConfig.sequence_length})",
    )
