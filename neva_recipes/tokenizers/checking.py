"""Checks a tokenizer: whether text comes back from it, and whether a template finds its tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import ConvTemplate, DataError
from neva_recipes.prompts.templates import get_template
from neva_recipes.tokenizers._measured import MeasuredTokenizer, open_measured
from neva_recipes.tokenizers._places import find_tokenizer
from neva_recipes.tokenizers._texts import TEXT_KEYS, Line, text_lines

__all__ = ["ChangedText", "Check", "check"]

_SHOWN = 5

_CONTEXT = 12


@dataclass(frozen=True)
class ChangedText:
    """A line that did not come back as it was.

    Attributes:
        path: Its file.
        number: The number of its document in the file, counted from 1.
        before: The text around the first difference.
        after: What came back there.
    """

    path: Path
    number: int
    before: str
    after: str


@dataclass(frozen=True)
class Check:
    """What a check of a tokenizer found.

    Attributes:
        size: One more than its largest id.
        lines: Number of lines of the text.
        tokens: Number of tokens that they became.
        unknown: Those of them that stand for text that has no token.
        partial: Those of them that stand for bytes which are no whole character.
        changed: Number of lines that did not come back as they were.
        first: The first of these.
        lost: Tokens of the vocabulary that no text becomes; `None` if this is not known for the kind of the tokenizer.
        split: The tokens of the template that are no special tokens, and the tokens that each becomes.
    """

    size: int
    lines: int
    tokens: int
    unknown: int
    partial: int
    changed: int
    first: tuple[ChangedText, ...]
    lost: tuple[str, ...] | None
    split: dict[str, tuple[str, ...]]

    @property
    def is_good(self) -> bool:
        """Whether all text came back, and the template finds its tokens."""
        return not self.changed and not self.split


def check(
    tokenizer: str,
    files: Sequence[Path],
    json_keys: Sequence[str] = TEXT_KEYS,
    *,
    conv_template: ConvTemplate | None = None,
) -> Check:
    """Encode and decode a text, and look for the tokens of a conversation template.

    Args:
        tokenizer: A .model file, a directory, or a hub name.
        files: Text, or JSONL; both may be compressed with gzip.
        json_keys: The fields of a record of JSONL that hold text.
        conv_template: The template; `None` looks for none.

    Raises:
        DataError: The tokenizer or a file cannot be used.
    """
    opened = open_measured(tokenizer)
    if not files:
        raise DataError("a check needs a text")
    split = {} if conv_template is None else dict(_split(opened, conv_template))
    lines = tokens = unknown = partial = 0
    changed: list[ChangedText] = []
    for line in text_lines(files, json_keys):
        ids, _ = opened.encode(line.text)
        lines += 1
        tokens += len(ids)
        unknown += sum(number in opened.unknown for number in ids)
        partial += sum(number in opened.partial for number in ids)
        if (back := opened.decode(ids)) != line.text:
            changed.append(_changed(line, back))
    return Check(
        size=opened.size,
        lines=lines,
        tokens=tokens,
        unknown=unknown,
        partial=partial,
        changed=len(changed),
        first=tuple(changed[:_SHOWN]),
        lost=opened.lost(),
        split=split,
    )


def _split(opened: MeasuredTokenizer, template: ConvTemplate) -> Iterator[tuple[str, tuple[str, ...]]]:
    from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer  # the plan takes 0.2 s

    found = read_tokenizer(find_tokenizer(opened.name))
    if found is None:
        raise DataError(f"tokenizer {opened.name}: only transformers can read its special tokens")
    for token in get_template(template).special_tokens:
        if token not in found.specials:
            yield token, tuple(opened.tokens.get(number, str(number)) for number in opened.encode(token)[0])


def _changed(line: Line, back: str) -> ChangedText:
    pairs = enumerate(zip(line.text, back, strict=False))
    place = next((number for number, (one, other) in pairs if one != other), min(len(line.text), len(back)))
    around = slice(max(place - _CONTEXT, 0), place + _CONTEXT)
    return ChangedText(line.path, line.number, line.text[around], back[around])
