"""Tables for a terminal of 80 columns."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["display_width", "padded", "table_lines"]

_WIDTH = 80


def table_lines(rows: Sequence[Sequence[str]], words: int, settings: Sequence[Mapping[str, str]] = ()) -> Iterator[str]:
    """Yield a line for each row, the cells of a column below each other.

    A first cell that would make its line too long has one of its own: names are pasted, and never cut.

    Args:
        rows: The cells of each row, as many in all of them; the first row is the head.
        words: So many columns stand at the left, the others, numbers, at the right.
        settings: What each row but the head is about: columns behind the first one, or lines below the rows if those
            would be too long.
    """
    names = list(dict.fromkeys(name for entry in settings for name in entry))
    columns = [names, *([entry.get(name, "-") for name in names] for entry in settings)]
    details = [""] * len(rows)
    if names:
        whole = [[row[0], *cells, *row[1:]] for row, cells in zip(rows, columns, strict=True)]
        if sum(_widths(whole)) + 2 * (len(whole[0]) - 1) <= _WIDTH:
            rows, words = whole, words + len(names)
        else:
            details = ["", *(", ".join(f"{name}={value}" for name, value in entry.items()) for entry in settings)]
    widths = _widths(rows)
    room = max(display_width(rows[0][0]), _WIDTH - sum(widths[1:]) - 2 * len(widths[1:]))
    widths[0] = max(width for row in rows if (width := display_width(row[0])) <= room)
    for row, detail in zip(rows, details, strict=True):
        if display_width(row[0]) > room:
            yield row[0]
            row = ["", *row[1:]]
        cells = [padded(*pair, column < words) for column, pair in enumerate(zip(row, widths, strict=True))]
        if len(row) > 1:
            yield "  ".join(cells).rstrip()
            cells = [" " * widths[0]]
        if detail or len(row) == 1:
            yield f"{cells[0]}  {detail}".rstrip()


def padded(text: str, width: int, is_word: bool = True) -> str:
    """Return a text with spaces up to a width, behind a word and before a number."""
    pad = " " * (width - display_width(text))
    return text + pad if is_word else pad + text


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(display_width, column)) for column in zip(*rows, strict=True)]


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    marks = sum(bool(unicodedata.combining(character)) for character in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(character) in "WF" for character in text)
