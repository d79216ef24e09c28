"""The argument --json-keys, which every command on text has."""

from neva_recipes.cli.arguments import StrictParser, UsageError
from neva_recipes.tokenizers import TEXT_KEYS

__all__ = ["add_json_keys", "keys_of"]


def add_json_keys(parser: StrictParser) -> None:
    """Add --json-keys, which every action that reads text has."""
    parser.add_argument(
        "--json-keys",
        metavar="K",
        default=",".join(TEXT_KEYS),
        help=f"fields of JSONL that hold text, as title,text ({','.join(TEXT_KEYS)})",
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
