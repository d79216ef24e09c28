"""Tables and commands for a terminal of 80 columns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from neva_recipes.terminal import one_line

__all__ = ["display_width", "folded_command", "padded", "table_lines"]

_WIDTH = 80
_COMMAND_WIDTH = 76
"""Narrower than the terminal, to leave room for the prompt of a shell when a command is pasted."""


def table_lines(rows: Sequence[Sequence[str]], words: int, settings: Sequence[Mapping[str, str]] = ()) -> Iterator[str]:
    """Yield a line for each row, with aligned columns.

    A first cell that would make its line too long gets a line of its own: names are never cut, so they can be pasted.

    Args:
        rows: The cells of each row, the same number in all rows; the first row is the head.
        words: Number of left-aligned columns; the other columns, numbers, are right-aligned.
        settings: Settings of each row but the head: further columns after the first one, or lines below the rows if the
            rows would be too long.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    settings = [{name: one_line(value) for name, value in entry.items()} for entry in settings]
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
    """Return a text padded with spaces to a width, after a word and before a number."""
    pad = " " * (width - display_width(text))
    return text + pad if is_word else pad + text


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(display_width, column)) for column in zip(*rows, strict=True)]


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text occupies."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth  # takes 40 ms, and most tables are ASCII

    return int(wcswidth(text))


def folded_command(words: Iterable[str]) -> str:
    """Return a command of already quoted words in lines of at most 76 characters, as far as its words allow."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + len(" \\") >= _COMMAND_WIDTH:
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)
