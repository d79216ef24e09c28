"""Arguments and lines that several actions have."""

from neva_recipes.cli.arguments import StrictParser, path_argument
from neva_recipes.terminal import tell

__all__ = ["SOURCE", "add_target", "tell_of_json"]

SOURCE = "a .model file, a directory, or a hub name"


def add_target(parser: StrictParser) -> None:
    """Add TARGET, which every action that writes has."""
    parser.add_argument(
        "target", metavar="TARGET", type=path_argument, help="file or directory to write; must not exist yet"
    )


def tell_of_json() -> None:
    """Say why a directory that is written has no tokenizer.json."""
    tell(
        "note",
        "tokenizer.json is left out, since it has the old vocabulary: transformers reads tokenizer.model instead",
    )
