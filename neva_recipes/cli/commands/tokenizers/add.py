"""Adds tokens: `nemo-run tokenizer add-tokens SOURCE TARGET`."""

from collections.abc import Iterator, Sequence

from neva_recipes.cli.arguments import StrictParser, path_argument
from neva_recipes.cli.commands.tokenizers._words import SOURCE, add_target, tell_of_json
from neva_recipes.config import how_many
from neva_recipes.terminal import one_line, tell
from neva_recipes.tokenizers import EXTRA_TOKENS, Addition, add_tokens

__all__ = ["add_action"]


def add_action(argv: Sequence[str]) -> int:
    """Write a SentencePiece model with further tokens: `nemo-run tokenizer add-tokens SOURCE TARGET`."""
    parser = StrictParser(
        "nemo-run tokenizer add-tokens",
        description=(
            "Write a SentencePiece model with further tokens behind its pieces, which keep\n"
            "their ids. Without --token these are the tokens that NeMo's prompts need:\n"
            f"{EXTRA_TOKENS[0]} to {EXTRA_TOKENS[-1]}."
        ),
    )
    parser.add_argument("source", metavar="SOURCE", type=path_argument, help=f"SentencePiece model: {SOURCE}")
    add_target(parser)
    parser.add_argument("--token", metavar="T", action="append", help="token to add; several: --token A --token B")
    parser.add_argument(
        "--control", action="store_true", help="control tokens, which no text holds (user-defined ones, kept whole)"
    )
    given = parser.parse(argv)
    tokens = EXTRA_TOKENS if given.token is None else given.token
    found = add_tokens(str(given.source), given.target, tokens, control=given.control)
    print(f"wrote {given.target}: {how_many(found.size, 'piece')}, of which {len(found.added)} are new")
    print(*_lines(found), sep="\n")
    for token in found.unreachable:
        why = ": SentencePiece replaces spaces before it looks for tokens" if " " in token else " of this token alone"
        tell("warning", f"{one_line(token)!r} is not found in a text{why}")
    if found.drops_json:
        tell_of_json()
    return 0


def _lines(found: Addition) -> Iterator[str]:
    for token, number in found.added.items():
        yield f"  {number:>7}  {one_line(token)}"
    for token, number in found.present.items():
        yield f"  {number:>7}  {one_line(token)} (there already)"
