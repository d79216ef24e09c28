"""Adds tokens: `nemo-run tokenizer add-tokens SOURCE TARGET`."""

from collections.abc import Iterator, Sequence

from neva_recipes.cli.arguments import StrictParser, path_argument
from neva_recipes.cli.commands.tokenizers._words import SOURCE, add_target, tell_of_json
from neva_recipes.config import how_many
from neva_recipes.terminal import one_line, tell
from neva_recipes.tokenizers import EXTRA_TOKENS, Addition, add_tokens

__all__ = ["add_action"]

_SPACE = "\u2581"


def add_action(argv: Sequence[str]) -> int:
    """Write a tokenizer with further tokens: `nemo-run tokenizer add-tokens SOURCE TARGET`."""
    parser = StrictParser(
        "nemo-run tokenizer add-tokens",
        description=(
            "Write a tokenizer with further tokens behind its own, which keep their ids.\n"
            "Without --token these are the tokens that NeMo's prompts need:\n"
            f"{EXTRA_TOKENS[0]} to {EXTRA_TOKENS[-1]}."
        ),
    )
    parser.add_argument("source", metavar="SOURCE", type=path_argument, help=f"tokenizer: {SOURCE}")
    add_target(parser)
    parser.add_argument("--token", metavar="T", action="append", help="token to add; several: --token A --token B")
    parser.add_argument(
        "--control", action="store_true", help="special tokens, which no text becomes (others, which texts keep whole)"
    )
    given = parser.parse(argv)
    tokens = EXTRA_TOKENS if given.token is None else given.token
    found = add_tokens(str(given.source), given.target, tokens, control=given.control)
    print(f"wrote {one_line(str(given.target))}: {how_many(found.size, 'token')}, of which {len(found.added)} are new")
    print(*_lines(found), sep="\n")
    for token in found.added:
        if problem := _problem(token, found):
            tell("warning", f"{one_line(token)!r} {problem}")
    if found.drops_json:
        tell_of_json()
    return 0


def _problem(token: str, found: Addition) -> str | None:
    """Return what a library does not find of a new token."""
    if not found.is_sentencepiece:
        return None
    if token in found.unreachable and " " in token:
        return (
            "is found by transformers alone, from a directory with tokenizer_config.json: SentencePiece turns spaces "
            f"into {_SPACE} before it looks for tokens"
        )
    if token in found.unreachable:
        return "is not found by SentencePiece in a text of this token alone"
    if _SPACE in token:
        return (
            f"holds {_SPACE}, which stands for a space: SentencePiece finds it where a text has a space, transformers "
            f"only where it has {_SPACE} itself"
        )
    return None


def _lines(found: Addition) -> Iterator[str]:
    for token, number in found.added.items():
        yield f"  {number:>7}  {one_line(token)}"
    for token, number in found.present.items():
        yield f"  {number:>7}  {one_line(token)} (there already)"
