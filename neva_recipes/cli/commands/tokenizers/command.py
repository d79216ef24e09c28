"""Makes tokenizers: `nemo-run tokenizer add-tokens`."""

from collections.abc import Callable, Iterator, Sequence

from neva_recipes.cli.arguments import StrictParser, path_argument
from neva_recipes.config import how_many
from neva_recipes.terminal import one_line, tell
from neva_recipes.tokenizers import EXTRA_TOKENS, Addition, add_tokens

__all__ = ["tokenizer_command"]

_SOURCE = "a .model file, a directory, or a hub name"


def tokenizer_command(argv: Sequence[str]) -> int:
    """Make a tokenizer: `nemo-run tokenizer ACTION ...`."""
    if argv and argv[0] in _ACTIONS:
        return _ACTIONS[argv[0]][0](argv[1:])
    width = max(map(len, _ACTIONS))
    parser = StrictParser(
        "nemo-run tokenizer",
        usage="nemo-run tokenizer ACTION ...",
        description="\n".join(
            [
                "Tools for tokenizers. What each takes: nemo-run tokenizer ACTION --help",
                "",
                *(f"  {name:<{width}}  {meaning}" for name, (_, meaning) in _ACTIONS.items()),
            ]
        ),
    )
    parser.add_argument("action", metavar="ACTION", choices=tuple(_ACTIONS), help=", ".join(_ACTIONS))
    parser.parse(argv)
    raise AssertionError("an action alone was dispatched above")


def _add_tokens(argv: Sequence[str]) -> int:
    parser = StrictParser(
        "nemo-run tokenizer add-tokens",
        description=(
            "Write a SentencePiece model with further tokens behind its pieces, which keep\n"
            "their ids. Without --token these are the tokens that NeMo's prompts need:\n"
            f"{EXTRA_TOKENS[0]} to {EXTRA_TOKENS[-1]}."
        ),
    )
    parser.add_argument("source", metavar="SOURCE", type=path_argument, help=f"SentencePiece model: {_SOURCE}")
    _add_target(parser)
    parser.add_argument("--token", metavar="T", action="append", help="token to add; several: --token A --token B")
    parser.add_argument(
        "--control", action="store_true", help="control tokens, which no text holds (user-defined ones, kept whole)"
    )
    given = parser.parse(argv)
    tokens = EXTRA_TOKENS if given.token is None else given.token
    found = add_tokens(str(given.source), given.target, tokens, control=given.control)
    print(f"wrote {given.target}: {how_many(found.size, 'piece')}, of which {len(found.added)} are new")
    print(*_addition_lines(found), sep="\n")
    for token in found.unreachable:
        why = ": SentencePiece replaces spaces before it looks for tokens" if " " in token else " of this token alone"
        tell("warning", f"{one_line(token)!r} is not found in a text{why}")
    if found.drops_json:
        _tell_of_json()
    return 0


def _addition_lines(found: Addition) -> Iterator[str]:
    for token, number in found.added.items():
        yield f"  {number:>7}  {one_line(token)}"
    for token, number in found.present.items():
        yield f"  {number:>7}  {one_line(token)} (there already)"


def _add_target(parser: StrictParser) -> None:
    parser.add_argument(
        "target", metavar="TARGET", type=path_argument, help="file or directory to write; must not exist yet"
    )


def _tell_of_json() -> None:
    tell(
        "note",
        "tokenizer.json is left out, since it has the old vocabulary: transformers reads tokenizer.model instead",
    )


_ACTIONS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "add-tokens": (_add_tokens, "tokens into a SentencePiece model"),
}
"""The function of each action, and its meaning."""
