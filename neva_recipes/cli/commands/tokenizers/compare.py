"""Compares tokenizers: `nemo-run tokenizer compare TOKENIZER [TOKENIZER ...] --text FILE`."""

import json
from collections.abc import Iterator, Sequence

from neva_recipes.cli.arguments import StrictParser, path_argument, wrap
from neva_recipes.cli.commands.json_keys import add_json_keys, keys_of
from neva_recipes.cli.commands.tokenizers._words import SOURCE, add_text
from neva_recipes.config import PlainTable, how_many
from neva_recipes.table import table_lines
from neva_recipes.terminal import one_line
from neva_recipes.tokenizers import UNSPACED, Comparison, ScriptCosts, compare

__all__ = ["compare_action"]

_HEAD = ("script", "words", "by", "tokens", "tokens/word", "bytes/token", "unknown", "partial")


def compare_action(argv: Sequence[str]) -> int:
    """Print what tokenizers make of a text: `nemo-run tokenizer compare TOKENIZER [TOKENIZER ...] --text FILE`."""
    parser = StrictParser(
        "nemo-run tokenizer compare",
        description=(
            "How many tokens a text costs with each tokenizer, by script. Tokens per word is\n"
            "called fertility: near 1 for a language that a tokenizer knows."
        ),
    )
    parser.add_argument("tokenizers", metavar="TOKENIZER", type=path_argument, nargs="+", help=f"tokenizer: {SOURCE}")
    add_text(parser)
    add_json_keys(parser)
    parser.add_argument("--format", metavar="F", choices=("text", "json"), default="text", help="text or json (text)")
    given = parser.parse(argv)
    found = compare([str(name) for name in given.tokenizers], given.text, keys_of(given.json_keys))
    if given.format == "json":
        print(json.dumps(_document(found), indent=2))
        return 0
    for number, (name, size) in enumerate(zip(found.tokenizers, found.sizes, strict=True), start=1):
        print(f"{number}: {one_line(name)}, {how_many(size, 'token')}")
    rows = [cells for costs in found.scripts for cells in _rows(costs)]
    print("", *table_lines([_HEAD, *rows], words=1), sep="\n")
    if any(costs.script in UNSPACED for costs in found.scripts):
        print("", wrap(f"Words are letters in {', '.join(UNSPACED)}, which put no spaces between words."), sep="\n")
    return 0


def _rows(costs: ScriptCosts) -> Iterator[tuple[str, ...]]:
    for number, cost in enumerate(costs.costs, start=1):
        first = (costs.script or "all", f"{costs.words:,}") if number == 1 else ("", "")
        yield (
            *first,
            str(number),
            f"{cost.tokens:,}",
            _ratio(cost.tokens, costs.words),
            _ratio(costs.size, cost.tokens),
            *(f"{100 * part / cost.tokens:.1f} %" if cost.tokens else "-" for part in (cost.unknown, cost.partial)),
        )


def _ratio(one: int, other: int) -> str:
    return f"{one / other:.2f}" if other else "-"


def _document(found: Comparison) -> PlainTable:
    return {
        "schema": 1,
        "lines": found.lines,
        "tokenizers": [
            {
                "name": name,
                "vocabulary": found.sizes[number],
                "scripts": [
                    {"script": costs.script, "words": costs.words, "bytes": costs.size, **vars(costs.costs[number])}
                    for costs in found.scripts
                ],
            }
            for number, name in enumerate(found.tokenizers)
        ],
    }
