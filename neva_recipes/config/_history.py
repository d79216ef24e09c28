"""Where the value of a field comes from, as Fiddle's history keeps it.

Fiddle notes the file and line that set a field. What comes from elsewhere than Python code is noted under a name that
no file has.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from fiddle import history

__all__ = ["COMMAND_LINE", "value_from"]

COMMAND_LINE = "command line"
"""The place of a value that was given as `key=value`."""

# Who called these is what people want to know.
for _file in ("neva_recipes/config/tree.py", "neva_recipes/config/inputs.py", "neva_recipes/_assembly.py"):
    history.add_exclude_location(_file)


@contextmanager
def value_from(place: str, line: int = 0) -> Iterator[None]:
    """Note `place` as the source of every field that is set meanwhile.

    Args:
        place: `COMMAND_LINE`, `default of CLASS`, or the path of a file.
        line: Line of that file; 0 where there are none.
    """
    location = history.Location(place, line, None)
    with history.custom_location(lambda: location):
        yield
