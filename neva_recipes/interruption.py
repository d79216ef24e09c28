"""Ctrl-C while a command works: what it says, and when it must wait."""

import contextlib
import signal
import sys
from collections.abc import Iterator

from neva_recipes.terminal import tell

__all__ = ["tell_of_interruption", "uninterrupted"]


def tell_of_interruption(message: str) -> None:
    """Print a note after Ctrl-C, below the ^C that a terminal shows."""
    if sys.stderr.isatty():
        print(file=sys.stderr)
    tell("note", message)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C, for a moment in which files are written or removed that belong together."""
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
