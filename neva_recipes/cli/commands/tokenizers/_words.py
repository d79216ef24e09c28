"""Arguments and lines that several actions have."""

from collections.abc import Sequence

from neva_recipes.cli.arguments import StrictParser, path_argument, wrap
from neva_recipes.terminal import one_line, tell

__all__ = ["SOURCE", "add_target", "add_text", "some_tokens", "tell_of_json"]

SOURCE = "a .model file, a directory, or a hub name (owner/name)"

_SHOWN = 8


def add_target(parser: StrictParser) -> None:
    """Add TARGET, which every action that writes has."""
    parser.add_argument(
        "target", metavar="TARGET", type=path_argument, help="file or directory to write; must not exist yet"
    )


def add_text(parser: StrictParser) -> None:
    """Add --text, which every action that measures has."""
    parser.add_argument(
        "--text",
        metavar="FILE",
        type=path_argument,
        action="append",
        required=True,
        help="file of text: lines, or JSONL; several: --text A --text B",
    )


def tell_of_json() -> None:
    """Say why a directory that is written has no tokenizer.json."""
    tell(
        "note",
        "tokenizer.json is left out, since it has the old vocabulary: transformers reads tokenizer.model instead",
    )


def some_tokens(tokens: Sequence[str]) -> str:
    """Return the first of some tokens, indented, and how many more there are."""
    more = f" and {len(tokens) - _SHOWN:,} more" if len(tokens) > _SHOWN else ""
    return wrap(", ".join(map(one_line, tokens[:_SHOWN])) + more, "    ")
