"""Samples as text: what carries loss is coloured, or stands in double brackets."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from neva_recipes.data_tools.preview.samples import Seen, Unit
from neva_recipes.terminal import fold, one_line, visible

__all__ = ["samples_to_text", "spans"]

_WIDTH = 80
_COLOUR, _PLAIN = "\x1b[30;42m", "\x1b[0m"


def spans(units: Iterable[Unit]) -> Iterator[tuple[str, bool]]:
    """Yield the text of tokens that follow each other, and whether they carry loss."""
    for is_learnt, together in groupby(units, lambda unit: unit.is_learnt):
        yield "".join(unit.text for unit in together), is_learnt


def samples_to_text(samples: Sequence[Seen], *, has_colour: bool) -> str:
    """Return samples as text."""
    return "\n".join("".join(f"{line}\n" for line in _lines(sample, has_colour)) for sample in samples)


def _lines(sample: Seen, has_colour: bool) -> Iterator[str]:
    yield from fold(one_line(sample.title), _WIDTH, "", "  ")
    if sample.image is not None:
        yield from fold(one_line(f"image {sample.image}"), _WIDTH, "", "  ")
    if not sample.problem:
        yield "".join(_marked(text, is_learnt, has_colour) for text, is_learnt in spans(sample.units))


def _marked(text: str, is_learnt: bool, has_colour: bool) -> str:
    shown = visible(text)
    if not is_learnt:
        return shown
    if not has_colour:
        return f"[[{shown}]]"
    # A colour that is on at the end of a line would fill the rest of it.
    return "\n".join(f"{_COLOUR}{line}{_PLAIN}" for line in shown.split("\n"))
