"""Makes data files: `nemo-run data text`."""

from collections.abc import Sequence

from neva_recipes.cli.arguments import StrictParser
from neva_recipes.cli.commands.data.text import text_action

__all__ = ["data_command"]


def data_command(argv: Sequence[str]) -> int:
    """Make data files: `nemo-run data text ...`."""
    if argv and argv[0] == "text":
        return text_action(argv[1:])
    parser = StrictParser(
        "nemo-run data",
        usage="nemo-run data text ...",
        description=(
            "Data files for training. What an action takes: nemo-run data text --help\n\n"
            "  text  text into Megatron's indexed datasets (.bin and .idx)"
        ),
    )
    parser.add_argument("action", metavar="ACTION", choices=("text",), help="text")
    parser.parse(argv)
    raise AssertionError("an action alone was dispatched above")
