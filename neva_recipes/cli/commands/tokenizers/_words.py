"""Arguments and lines that several actions have."""

from collections.abc import Sequence

from neva_recipes.cli.arguments import StrictParser, UsageError, path_argument, wrap
from neva_recipes.terminal import one_line, tell
from neva_recipes.tokenizers import TEXT_KEYS

__all__ = ["SOURCE", "add_json_keys", "add_target", "add_text", "keys_of", "some_tokens", "tell_of_json"]

SOURCE = "a .model file, a directory, or a hub name (owner/name)"

_SHOWN = 8


def add_target(parser: StrictParser) -> None:
    """Add TARGET, which every action that writes has."""
    parser.add_argument(
        "target", metavar="TARGET", type=path_argument, help="file or directory to write; must not exist yet"
    )


def add_json_keys(parser: StrictParser) -> None:
    """Add --json-keys, which every action that reads text has."""
    parser.add_argument(
        "--json-keys",
        metavar="K",
        default=",".join(TEXT_KEYS),
        help=f"fields of JSONL that hold text, as title,text ({','.join(TEXT_KEYS)})",
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


def keys_of(text: str) -> list[str]:
    """Return the fields that --json-keys names.

    Raises:
        UsageError: One is empty.
    """
    keys = [key.strip() for key in text.split(",")]
    if not all(keys):
        raise UsageError(f"--json-keys {text!r}: a field has no name; expected fields such as title,text")
    return keys


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
