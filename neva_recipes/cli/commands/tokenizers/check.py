"""Checks a tokenizer: `nemo-run tokenizer check TOKENIZER --text FILE`."""

import json
from collections.abc import Iterator, Sequence
from typing import get_args

from neva_recipes.cli.arguments import StrictParser, path_argument, wrap
from neva_recipes.cli.commands.json_keys import add_json_keys, keys_of
from neva_recipes.cli.commands.tokenizers._words import SOURCE, add_text, some_tokens
from neva_recipes.config import ConvTemplate, PlainTable, how_many
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.terminal import one_line
from neva_recipes.tokenizers import Check, check

__all__ = ["check_action"]


def check_action(argv: Sequence[str]) -> int:
    """Print whether text comes back from a tokenizer: `nemo-run tokenizer check TOKENIZER --text FILE`."""
    parser = StrictParser(
        "nemo-run tokenizer check",
        description=(
            "Whether a text comes back from a tokenizer as it was, how much of it has no\n"
            "token, and whether a conversation template finds its special tokens. Text that\n"
            "changes, or a special token that is none, ends with exit code 2."
        ),
    )
    parser.add_argument("tokenizer", metavar="TOKENIZER", type=path_argument, help=f"tokenizer: {SOURCE}")
    add_text(parser)
    parser.add_argument("--conv-template", metavar="NAME", choices=get_args(ConvTemplate), help="template, such as v1")
    add_json_keys(parser)
    parser.add_argument("--format", metavar="F", choices=("text", "json"), default="text", help="text or json (text)")
    given = parser.parse(argv)
    name = str(given.tokenizer)
    found = check(name, given.text, keys_of(given.json_keys), conv_template=given.conv_template)
    if given.format == "json":
        print(json.dumps(_document(name, found), indent=2))
    else:
        print(f"{one_line(name)}: {how_many(found.size, 'token')}", *_lines(found, given.conv_template), sep="\n")
    return 0 if found.is_good else EXIT_MISTAKE


def _lines(found: Check, template: str | None) -> Iterator[str]:
    yield f"  {found.changed:,} of {how_many(found.lines, 'line')} changed{':' if found.changed else ''}"
    for text in found.first:
        yield f"    {one_line(str(text.path))}:{text.number}"
        yield f"      {json.dumps(text.before, ensure_ascii=False)}"
        yield f"   -> {json.dumps(text.after, ensure_ascii=False)}"
    if not found.tokens:
        yield "  the text becomes no tokens"
    for count, meaning in (
        (found.unknown, "stand for text that has no token"),
        (found.partial, "stand for bytes that are no whole character"),
    ):
        if found.tokens:
            yield f"  {100 * count / found.tokens:.2f} % of {how_many(found.tokens, 'token')} {meaning}"
    if found.lost is not None:
        yield f"  {how_many(len(found.lost), 'token')} of the vocabulary come of no text{':' if found.lost else ''}"
        if found.lost:
            yield some_tokens(found.lost)
    if template is not None and not found.split:
        yield f"  {template} finds its special tokens"
    for token, parts in found.split.items():
        yield wrap(f"{token} of {template} is no special token, and becomes {', '.join(map(one_line, parts))}", "  ")


def _document(name: str, found: Check) -> PlainTable:
    return {
        "schema": 1,
        "name": name,
        "vocabulary": found.size,
        "lines": found.lines,
        "tokens": found.tokens,
        "unknown": found.unknown,
        "partial": found.partial,
        "changed": found.changed,
        "first_changed": [{**vars(text), "path": str(text.path)} for text in found.first],
        "lost": found.lost,
        "split": found.split,
    }
