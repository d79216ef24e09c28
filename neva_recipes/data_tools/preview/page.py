"""Samples as one self-contained page, with their pictures beside them, and as a PNG picture."""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from neva_recipes.config import UserError
from neva_recipes.data_tools.page import matplotlib_classes
from neva_recipes.data_tools.preview.samples import Seen
from neva_recipes.data_tools.preview.text import spans
from neva_recipes.data_tools.style import page_of
from neva_recipes.html import Element, element
from neva_recipes.prompts.pictures import FORMATS
from neva_recipes.terminal import visible

__all__ = ["samples_to_html", "samples_to_png"]

_SIDE = 320
"""Pixels of the longer side of a picture."""

_COLUMNS, _LETTER, _LINE, _MARGIN = 110, 9, 20, 16
"""Letters in a line of the PNG picture, and pixels of a letter, a line, and the margins."""

_MOST_HIGH = 30_000
"""Pixels of the highest picture: about 100 MiB of memory."""


def samples_to_html(samples: Sequence[Seen], below: str) -> str:
    """Return the page of some samples; each token tells its id when it is pointed at.

    Args:
        samples: The samples.
        below: What stands below the title.
    """
    return page_of("Samples as a model sees them", visible(below), map(_part, samples))


def _part(sample: Seen) -> Element:
    title = element("h2", visible(sample.title))
    if sample.problem:
        return element("section", title)
    shown = (
        element("mark" if unit.is_learnt else "span", visible(unit.text), title=" ".join(map(str, unit.ids[:4])))
        for unit in sample.units
    )
    prompt = element("pre", *shown)
    picture = None if sample.image is None else _thumbnail(sample.image)
    if picture is None or sample.image is None:
        unread = [] if sample.image is None else [element("p", visible(f"{sample.image} cannot be decoded"))]
        return element("section", title, *unread, element("div", prompt, class_="sample alone"))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    image = element("div", element("img", src=source, alt=visible(sample.image.name)))
    return element("section", title, element("div", image, prompt, class_="sample"))


def _thumbnail(path: Path) -> Any:
    """Return a small copy of a picture; `None` if it cannot be decoded."""
    import struct
    import warnings
    import zlib

    from PIL import Image

    errors = (
        *(OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, AttributeError),
        *(OverflowError, MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
    )  # those of Pillow have no common base class
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=FORMATS) as image:
                copy = image.convert("RGB")
        except errors:
            return None
    copy.thumbnail((_SIDE, _SIDE))
    return copy


def samples_to_png(samples: Sequence[Seen]) -> bytes:
    """Return a PNG picture of some samples: their pictures, and beside them their tokens as text.

    Raises:
        UserError: Matplotlib is not installed, whose font is used.
    """
    matplotlib_classes()
    from matplotlib.font_manager import findfont
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(findfont("DejaVu Sans Mono"), 15)
    blocks = [(list(_rows(sample)), None if sample.image is None else _thumbnail(sample.image)) for sample in samples]
    heights = [max(_LINE * len(rows), picture.height if picture else 0) + 2 * _MARGIN for rows, picture in blocks]
    width = _SIDE + _COLUMNS * _LETTER + 3 * _MARGIN
    if sum(heights) > _MOST_HIGH:
        raise UserError(f"--png: {len(samples)} such samples make too high a picture: take fewer, with -n")
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for (rows, picture), height in zip(blocks, heights, strict=True):
        if picture is not None:
            sheet.paste(picture, (_MARGIN, top + _MARGIN))
        for number, row in enumerate(rows):
            for column, (letter, is_learnt) in enumerate(row):
                x, y = _SIDE + 2 * _MARGIN + column * _LETTER, top + _MARGIN + number * _LINE
                if is_learnt:
                    draw.rectangle((x, y, x + _LETTER - 1, y + _LINE - 1), "#c9efd6")
                draw.text((x, y), letter, "black", font)
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _rows(sample: Seen) -> Iterator[list[tuple[str, bool]]]:
    """Yield the lines of a sample: each letter, and whether it carries loss."""
    row = list[tuple[str, bool]]()
    for text, is_learnt in ((f"{sample.title}\n", False), *spans(sample.units)):
        for letter in visible(text):
            if letter == "\n" or len(row) == _COLUMNS:
                yield row
                row = []
            if letter != "\n":
                row.append((" " if letter == "\t" else letter, is_learnt))
    yield row
