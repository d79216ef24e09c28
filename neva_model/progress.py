"""Progress of commands: one changing line at a terminal, otherwise a line now and then."""

import sys
import time

from neva_recipes.terminal import print_progress

__all__ = ["ByteProgress", "ProgressLine"]

_SECONDS_BETWEEN_LINES, _SECONDS_AT_TERMINAL = 10, 0.2


class ProgressLine:
    """Shows lines about the progress of some work, but not more often than anybody wants to read them.

    Attributes:
        has_shown: Whether it has shown one.
    """

    def __init__(self) -> None:
        """Begin to count the time."""
        self._interval = _SECONDS_AT_TERMINAL if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES
        self._shown_at = time.monotonic()
        self.has_shown = False

    def show(self, line: str, *, is_last: bool) -> None:
        """Show a line if it is time, and in any case the last one."""
        now = time.monotonic()
        if not is_last and now - self._shown_at < self._interval:
            return
        self._shown_at, self.has_shown = now, True
        print_progress(line, is_last=is_last)


class ByteProgress:
    """Shows how many of the bytes of a model have been written, unless that is done before a line is due."""

    def __init__(self, total: int) -> None:
        """Store the number of all bytes."""
        self._total, self._done, self._line = total, 0, ProgressLine()

    def add(self, count: int) -> None:
        """Count bytes that have been written."""
        self._done += count
        done, total = self._done / 2**20, self._total / 2**20
        self._line.show(
            f"{done:,.1f} of {total:,.1f} MiB written", is_last=self._line.has_shown and self._done >= self._total
        )
