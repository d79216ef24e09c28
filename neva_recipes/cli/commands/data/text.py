"""Turns text into indexed datasets: `nemo-run data text INPUT [INPUT ...] OUT --tokenizer T`."""

from collections.abc import Iterator, Sequence

from neva_recipes.cli.arguments import StrictParser, UsageError, path_argument, whole_number
from neva_recipes.cli.commands.data._progress import Teller
from neva_recipes.cli.commands.json_keys import add_json_keys, keys_of
from neva_recipes.config import DataError, Positive, how_many
from neva_recipes.interruption import tell_of_interruption
from neva_recipes.table import table_lines
from neva_recipes.terminal import one_line, tell
from neva_recipes.token_data import PARTS, SEED, Progress, TokenData, make_token_data, split_weights
from neva_recipes.tokenizers import find_tokenizer

__all__ = ["text_action"]


def text_action(argv: Sequence[str]) -> int:
    """Write text as Megatron's indexed datasets: `nemo-run data text INPUT [INPUT ...] OUT --tokenizer T`."""
    given = _parser().parse(argv)
    if given.tokenizer is None:
        raise UsageError("--tokenizer is missing: name that of the model, as data.tokenizer does")
    keys, split = keys_of(given.json_keys), _split_of(given.split)
    teller = Teller()
    try:
        found = make_token_data(
            given.inputs,
            given.out,
            tokenizer=find_tokenizer(str(given.tokenizer)),
            json_keys=keys,
            append_eod=given.append_eod,
            workers=given.workers,
            split=split,
            seed=given.seed,
            tell=lambda progress: teller.tell(lambda _: _line(progress)),
        )
    except KeyboardInterrupt:
        tell_of_interruption("stopped; the same command goes on from here")
        raise
    teller.end()
    print(f"wrote {one_line(str(given.out))}: {_amount(found.counts.documents, found.counts.tokens)}")
    print(*_lines(found), sep="\n")
    for note in found.notes:
        tell("note", note)
    for part in found.lacking:
        tell(
            "warning",
            f"{part}: none of {how_many(found.counts.documents, 'document')} fell into it, so there is no "
            f"{one_line(str(given.out))}/{part}.idx: give it a larger weight with --split, or draw anew with --seed",
        )
    return 0


def _parser() -> StrictParser:
    parser = StrictParser(
        "nemo-run data text",
        description=(
            "Write text as Megatron's indexed datasets: OUT/train.bin and OUT/train.idx. Text\n"
            "is JSONL (.jsonl), parquet (.parquet), or any other file with one document a\n"
            "line, each also with .gz or .zst; of a folder, all such files below it. After a\n"
            "command that was stopped, the same command goes on."
        ),
    )
    parser.add_argument("inputs", metavar="INPUT", type=path_argument, nargs="+", help="file of text, or folder")
    parser.add_argument("out", metavar="OUT", type=path_argument, help="folder to write; must not exist yet")
    parser.add_argument("--tokenizer", metavar="T", type=path_argument, help="the model's tokenizer, as data.tokenizer")
    add_json_keys(parser)
    parser.add_argument("--append-eod", action="store_true", help="put the tokenizer's end token behind each document")
    parser.add_argument(
        "--split", metavar="W,W,W", default="1", help=f"weights of {', '.join(PARTS)}, as 98,1,1 (1: all for training)"
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        default=SEED,
        type=lambda text: whole_number(text),
        help=f"decides which documents each part gets ({SEED})",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        default=1,
        type=lambda text: whole_number(text, Positive),
        help="processes that encode (1)",
    )
    return parser


def _split_of(text: str) -> list[float]:
    try:
        return split_weights(text)
    except DataError as error:
        raise UsageError(f"--{error}") from None


def _lines(found: TokenData) -> Iterator[str]:
    counts = found.counts
    rows = [(name, _amount(documents, found.tokens[name])) for name, documents in found.documents.items()]
    yield from (f"  {line}" for line in table_lines(rows, words=2))
    per_word, per_token = counts.tokens / max(1, counts.words), counts.bytes / max(1, counts.tokens)
    yield f"  {how_many(counts.words, 'word')}, {per_word:.2f} tokens each; {per_token:.2f} bytes of text a token"
    yield f"  {counts.empty:,} empty, none cut"
    if found.goes_on:
        yield "  went on with what a command that was stopped had written"


def _amount(documents: int, tokens: int) -> str:
    return f"{how_many(documents, 'document')}, {how_many(tokens, 'token')}"


def _line(progress: Progress) -> str:
    rate = progress.new_tokens / progress.seconds
    at = f"{progress.share:.0%}, file {min(progress.file + 1, progress.files)} of {progress.files}"
    amount = _amount(progress.counts.documents, progress.counts.tokens)
    return f"{at}: {amount}, {rate:,.0f} tokens/s"
