"""Progress of an action: a line that a terminal overwrites; otherwise a line now and then."""

import sys
import time
from collections.abc import Callable

from neva_recipes.terminal import print_progress

__all__ = ["Teller"]

_SECONDS, _SECONDS_AT_TERMINAL = 10.0, 0.2


class Teller:
    """Shows lines, but not more often than anybody wants to read them."""

    def __init__(self) -> None:
        """Begin to count the time."""
        self._interval = _SECONDS_AT_TERMINAL if sys.stderr.isatty() else _SECONDS
        self._begun = self._told = time.monotonic()
        self._has_told = False

    def tell(self, line: Callable[[float], str]) -> None:
        """Show a line if it is time for one.

        Args:
            line: Returns it, for the seconds since the begin.
        """
        now = time.monotonic()
        if now - self._told < self._interval:
            return
        self._told, self._has_told = now, True
        print_progress(line(now - self._begun), is_last=False)

    def end(self) -> None:
        """End the line."""
        if self._has_told and sys.stderr.isatty():
            print(file=sys.stderr)
