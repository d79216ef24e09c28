"""Values that tables leave in records where a cell is empty or holds no number."""

import math

__all__ = ["empty_cell"]


def empty_cell(value: object) -> str | None:
    """Return such a value as JSON writes it, and where it comes from; `None` for any other.

    Putting it in quotes would teach the model to answer with that word.
    """
    if value is None:
        return "null, which an empty cell of a table becomes"
    if not isinstance(value, float) or math.isfinite(value):
        return None
    if math.isnan(value):
        return "NaN, which an empty cell of a table becomes"
    return f"{'-' if value < 0 else ''}Infinity, which a number too large or a division by zero becomes"
