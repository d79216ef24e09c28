"""Compares tokenizers on a text, by script: `nemo-run tokenizer compare`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import DataError
from neva_recipes.tokenizers._measured import MeasuredTokenizer, open_measured
from neva_recipes.tokenizers._scripts import scripts_of, words_of
from neva_recipes.tokenizers._texts import TEXT_KEYS, text_lines

__all__ = ["Comparison", "Cost", "ScriptCosts", "compare"]


@dataclass(frozen=True)
class Cost:
    """What a tokenizer makes of a text.

    Attributes:
        tokens: Number of tokens.
        unknown: Those of them that stand for text that has no token.
        partial: Those of them that stand for bytes which are no whole character.
    """

    tokens: int
    unknown: int
    partial: int


@dataclass(frozen=True)
class ScriptCosts:
    """What tokenizers make of the text of a script.

    Attributes:
        script: Its name; `None` for all text.
        words: Number of words; of letters in scripts without spaces.
        size: Bytes of the text in UTF-8.
        costs: What each tokenizer makes of it.
    """

    script: str | None
    words: int
    size: int
    costs: tuple[Cost, ...]


@dataclass(frozen=True)
class Comparison:
    """Tokenizers, and what each makes of a text.

    Attributes:
        tokenizers: Their names.
        sizes: One more than the largest id of each.
        lines: Number of lines of the text.
        scripts: Costs of all text, then of each script, the one with most bytes first.
    """

    tokenizers: tuple[str, ...]
    sizes: tuple[int, ...]
    lines: int
    scripts: tuple[ScriptCosts, ...]


def compare(tokenizers: Sequence[str], files: Sequence[Path], json_keys: Sequence[str] = TEXT_KEYS) -> Comparison:
    """Return what tokenizers make of a text.

    A token counts for the script of the character at which it begins; spaces and digits count for the letter that
    follows.

    Args:
        tokenizers: The tokenizers: .model files, directories, hub names.
        files: Text, or JSONL; both may be compressed with gzip.
        json_keys: The fields of a record of JSONL that hold text.

    Raises:
        DataError: A tokenizer or a file cannot be used.
    """
    opened = [open_measured(name) for name in tokenizers]
    if not opened or not files:
        raise DataError("a comparison needs a tokenizer and a text")
    words: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    counts: list[dict[str, Counter[str]]] = [
        {kind: Counter() for kind in ("tokens", "unknown", "partial")} for _ in opened
    ]
    lines = 0
    for line in text_lines(files, json_keys):
        lines += 1
        scripts = scripts_of(line.text)
        words += words_of(line.text, scripts)
        for character, script in zip(line.text, scripts, strict=True):
            sizes[script] += len(character.encode())
        for tokenizer, counted in zip(opened, counts, strict=True):
            _count(tokenizer, line.text, scripts, counted)
    names = [script for script, _ in sizes.most_common()]
    return Comparison(
        tokenizers=tuple(tokenizers),
        sizes=tuple(tokenizer.size for tokenizer in opened),
        lines=lines,
        scripts=tuple(
            ScriptCosts(
                script, _sum(words, chosen), _sum(sizes, chosen), tuple(_cost(counted, chosen) for counted in counts)
            )
            for script, chosen in [(None, names), *((name, [name]) for name in names)]
        ),
    )


def _count(tokenizer: MeasuredTokenizer, text: str, scripts: list[str], counted: dict[str, Counter[str]]) -> None:
    for number, place in zip(*tokenizer.encode(text), strict=True):
        script = scripts[min(place, len(scripts) - 1)]
        counted["tokens"][script] += 1
        counted["unknown"][script] += number in tokenizer.unknown
        counted["partial"][script] += number in tokenizer.partial


def _cost(counted: dict[str, Counter[str]], scripts: Iterable[str]) -> Cost:
    return Cost(**{kind: _sum(numbers, scripts) for kind, numbers in counted.items()})


def _sum(numbers: Counter[str], scripts: Iterable[str]) -> int:
    return sum(numbers[script] for script in scripts)
