"""Trains a tokenizer: `nemo-run tokenizer train FILE TARGET --vocab-size N`."""

from collections.abc import Sequence
from typing import get_args

from neva_recipes.cli.arguments import StrictParser, UsageError, path_argument, whole_number
from neva_recipes.cli.commands.json_keys import add_json_keys, keys_of
from neva_recipes.cli.commands.tokenizers._words import add_target
from neva_recipes.config import Positive, how_many
from neva_recipes.terminal import one_line
from neva_recipes.tokenizers import Kind, train

__all__ = ["train_action"]


def train_action(argv: Sequence[str]) -> int:
    """Write a tokenizer that is trained on some text: `nemo-run tokenizer train FILE TARGET --vocab-size N`."""
    parser = StrictParser(
        "nemo-run tokenizer train",
        description=(
            "Train a tokenizer on text: SentencePiece BPE with bytes, as Llama 2 has, or\n"
            "byte-level BPE, as Qwen has. The same text gives the same tokenizer."
        ),
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        type=path_argument,
        nargs="+",
        help="file of text: lines, or JSONL; gzip or zstd if need be",
    )
    add_target(parser)
    parser.add_argument(
        "--vocab-size",
        metavar="N",
        type=lambda text: whole_number(text, Positive),
        help="number of tokens, bytes and special tokens included",
    )
    kinds = get_args(Kind)
    parser.add_argument("--kind", choices=kinds, default=kinds[0], help=f"kind of tokenizer ({kinds[0]})")
    add_json_keys(parser)
    given = parser.parse(argv)
    if given.vocab_size is None:
        raise UsageError("--vocab-size is missing: a language takes 8,000 to 32,000 tokens")
    lines = train(
        given.files, given.target, vocab_size=given.vocab_size, kind=given.kind, json_keys=keys_of(given.json_keys)
    )
    sizes = f"{how_many(given.vocab_size, 'token')} from {how_many(lines, 'line')} of text"
    print(f"wrote {one_line(str(given.target))}: {sizes}")
    return 0
