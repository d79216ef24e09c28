"""What is known about a model on the disk, for a terminal of 80 columns."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping

from neva_recipes.inspection.stored.stored_model import StoredModel, StoredPart, StoredTensor
from neva_recipes.table import table_lines
from neva_recipes.terminal import one_line

__all__ = ["stored_lines"]

_HEAD = ("part", "kind", "type", "parameters", "tensors", "size")
_WIDTH = 80
_WORDS = 3
"""Columns of words, before those of numbers."""


def stored_lines(model: StoredModel, *, with_tensors: bool = False) -> Iterator[str]:
    """Yield the lines about a model.

    Args:
        model: The model.
        with_tensors: Whether every tensor is listed, by type and shape.
    """
    yield one_line(str(model.path))
    yield f"  {model.title}"
    yield ""
    if model.parts:
        yield from table_lines([_HEAD, *map(_row, model.parts), *_sum(model)], _WORDS)
        yield ""
    shapes = {part.name: part.shape for part in model.parts if part.shape}
    yield from _named({**shapes, **model.facts})
    yield ""
    if usable := [use.words for use in model.uses if use.problem is None]:
        yield "It can be used as"
        yield from (f"  {one_line(words)}" for words in usable)
    if refused := [use for use in model.uses if use.problem is not None]:
        yield "and not as" if usable else "It cannot be used as"
        for use in refused:
            yield from _folded("  ", f"{use.name}: {use.problem}", hanging="    ")
    if with_tensors:
        yield ""
        yield from table_lines([("tensor", "type", "shape"), *_tensor_rows(model.tensors)], 3)


def _row(part: StoredPart) -> tuple[str, ...]:
    count = "" if part.parameters is None else f"{part.parameters:,}"
    types = " + ".join(sorted(part.types, key=lambda dtype: -part.types[dtype]))
    return part.name, part.kind or "", types, count, f"{part.tensors:,}", _size(part.bytes)


def _sum(model: StoredModel) -> Iterable[tuple[str, ...]]:
    if len(model.parts) > 1:
        tensors = sum(part.tensors for part in model.parts)
        yield "all", "", "", f"{model.parameters:,}", f"{tensors:,}", _size(sum(part.bytes for part in model.parts))


def _tensor_rows(tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, ...]]:
    for name, tensor in tensors.items():
        yield name, tensor.dtype, " x ".join(map(str, tensor.shape)) or "a number"


def _named(facts: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        yield from _folded(f"{name:<{width}}  ", text)


def _folded(start: str, text: str, hanging: str = "") -> Iterator[str]:
    """Yield a text in lines, with `start` before the first and `hanging`, or as much space, before the others."""
    # Paths and digests are never cut, so that they can be pasted.
    yield from textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=hanging or " " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _size(count: int) -> str:
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB") if count >= 2**20 else (2**10, "KiB")
    return f"{count / unit:,.1f} {name}"
