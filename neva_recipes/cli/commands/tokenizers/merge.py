"""Merges two tokenizers: `nemo-run tokenizer merge BASE NEW TARGET`."""

from collections.abc import Iterator, Sequence

from neva_recipes.cli.arguments import StrictParser, path_argument, wrap
from neva_recipes.cli.commands.json_keys import add_json_keys, keys_of
from neva_recipes.cli.commands.tokenizers._words import SOURCE, add_target, some_tokens, tell_of_json
from neva_recipes.terminal import one_line, tell
from neva_recipes.tokenizers import Merger, OldText, merge

__all__ = ["merge_action"]


def merge_action(argv: Sequence[str]) -> int:
    """Write a tokenizer with the tokens of two: `nemo-run tokenizer merge BASE NEW TARGET`."""
    parser = StrictParser(
        "nemo-run tokenizer merge",
        description=(
            "Write the tokenizer BASE with the tokens of NEW behind its own, which keep their\n"
            "ids and come first. Both are SentencePiece models of BPE, or both are byte-level\n"
            "BPE."
        ),
    )
    parser.add_argument("base", metavar="BASE", type=path_argument, help=f"tokenizer of the model: {SOURCE}")
    parser.add_argument("new", metavar="NEW", type=path_argument, help="tokenizer of the new language, named likewise")
    add_target(parser)
    parser.add_argument(
        "--old-text",
        metavar="FILE",
        type=path_argument,
        help="file of text to compare before and after: lines, or JSONL",
    )
    add_json_keys(parser)
    given = parser.parse(argv)
    found = merge(
        str(given.base), str(given.new), given.target, old_text=given.old_text, json_keys=keys_of(given.json_keys)
    )
    tokens = found.tokens
    sizes = f"{tokens.size:,} tokens, {tokens.base_size:,} of BASE and {len(tokens.added):,} new"
    print(f"wrote {one_line(str(given.target))}: {sizes}")
    print(*_lines(found), sep="\n")
    for difference in tokens.differences:
        tell("note", f"BASE and NEW differ, and BASE's is kept: {difference}")
    if found.drops_json:
        tell_of_json()
    return 0


def _lines(found: Merger) -> Iterator[str]:
    tokens = found.tokens
    yield f"  {tokens.duplicates:,} of NEW are in BASE already"
    if tokens.unproducible:
        yield f"  {len(tokens.unproducible):,} of NEW are left out, since no text gives them while BASE comes first:"
        yield some_tokens(tokens.unproducible)
    for others, kind, remedy in (
        (tokens.not_taken, "special tokens of NEW", "add-tokens --control"),
        (tokens.whole_not_taken, "tokens of NEW that texts keep whole", "add-tokens"),
    ):
        if others:
            yield f"  {len(others):,} {kind} are not taken (nemo-run tokenizer {remedy} adds them):"
            yield some_tokens(others)
    if found.old_text is not None:
        yield from _old_lines(found.old_text)


def _old_lines(old: OldText) -> Iterator[str]:
    yield f"  {old.changed:,} of {old.lines:,} lines of old text have other ids{':' if old.changed else ''}"
    for line in old.first:
        yield wrap(f"line {line.number}: {', '.join(map(one_line, line.pieces)) or 'tokens of BASE'}", "    ")
