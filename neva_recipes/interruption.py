"""Ctrl-C: what a command says and when it must wait; and whether a command or Python code has started a run."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from contextvars import ContextVar

from neva_recipes.terminal import tell

__all__ = ["command_tells_ends", "ends_told_by_command", "tell_of_interruption", "uninterrupted"]

_BY_COMMAND = ContextVar("_BY_COMMAND", default=False)


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


@contextlib.contextmanager
def ends_told_by_command() -> Iterator[None]:
    """Let each run that is started within just end: the command says how, and has an exit code for it.

    Outside, Python code goes on after a run unless an exception stops it.
    """
    token = _BY_COMMAND.set(True)
    try:
        yield
    finally:
        _BY_COMMAND.reset(token)


def command_tells_ends() -> bool:
    """Return whether this is within `ends_told_by_command`."""
    return _BY_COMMAND.get()
