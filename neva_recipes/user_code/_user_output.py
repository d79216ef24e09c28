"""Redirects the output, warnings, input and exits of users' code; reports each line with its place."""

import contextlib
import functools
import importlib
import io
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import dropwhile
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from neva_recipes.config import path_is
from neva_recipes.terminal import tell, threads_print_to

__all__ = ["EndedAtOnce", "HeldErrors", "kept_apart", "place_of", "text_of"]

_OURS = tuple(str(Path(__file__).parents[2] / name) + os.sep for name in ("neva_recipes", "executors"))
_MACHINERY = ("<frozen", importlib.__path__[0], contextlib.__file__, warnings.__file__)
"""Files of the frames between this project's and the user's frames during an import."""


def place_of(source: str, frames: Iterable[tuple[FrameType, int]]) -> str:
    """Return the user's file and line from frames, given the outermost first; only the source if no frame is theirs."""
    places = [(frame.f_code.co_filename, line) for frame, line in frames]
    inside = [line for file, line in places if file == source]
    if inside:
        return f"{source}, line {inside[-1]}"
    called = dropwhile(lambda place: not place[0].startswith(_OURS), places)  # frames below ours, not our callers
    others = [place for place in called if not place[0].startswith((*_OURS, *_MACHINERY))]
    return f"{source}: {others[0][0]}, line {others[0][1]}" if others else source


class EndedAtOnce(SystemExit):
    """Raised when the user's code calls `os._exit`, which would end the command without a message."""


@contextlib.contextmanager
def kept_apart(source: str, errors: "HeldErrors | None") -> Iterator[None]:
    """Keep the user's code from standard output, from the working directory and, at an import, from standard input.

    Restores the interpreter settings that the command depends on.
    """
    given = sys.stdout, sys.stderr, sys.stdin, warnings.showwarning
    tell_of_thread = threading.excepthook
    folder, path, depth, end_at_once = Path.cwd(), list(sys.path), sys.getrecursionlimit(), os._exit
    lines = _Lines(source, sys.stderr)
    # Has everything that the standard output of a script has: an encoding, a buffer, a descriptor.
    told = io.TextIOWrapper(lines, encoding="utf-8", errors="surrogateescape", write_through=True)  # type: ignore[type-var]
    sys.stdout = told
    warnings.showwarning = functools.partial(_tell_warning, lines)
    threading.excepthook = functools.partial(_tell_of_thread, lines)
    os._exit = functools.partial(_end_at_once, os.getpid(), end_at_once)
    if errors is not None:
        sys.stderr, sys.stdin = errors, _Deaf()
    try:
        with _descriptor_of_output_redirected(given[0]):
            yield
    finally:
        sys.stdout, sys.stderr, sys.stdin, warnings.showwarning = given
        os._exit = end_at_once
        sys.path.extend(entry for entry in path if entry not in sys.path)  # for later imports
        sys.setrecursionlimit(max(depth, sys.getrecursionlimit()))
        lines.end_line()
        if threading.active_count() > 1:
            threads_print_to(told)
        else:
            threading.excepthook = tell_of_thread
        if not path_is(Path(), lambda here: here.samefile(folder)):
            left = Path.cwd()
            os.chdir(folder)
            tell("note", f"{source} changes the working directory to {left}: it is set back to {folder}")


@contextlib.contextmanager
def _descriptor_of_output_redirected(output: TextIO) -> Iterator[None]:
    """Redirect file descriptor 1, to which programs and C libraries print, to standard error."""
    try:
        output.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # a descriptor is closed
        yield
        return
    try:
        yield
    finally:
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()  # output written to sys.__stdout__
        os.dup2(kept, 1)
        os.close(kept)


def _end_at_once(process: int, end: Callable[[int], NoReturn], status: int) -> NoReturn:
    if os.getpid() != process:  # a forked child: multiprocessing ends its processes with os._exit
        end(status)
    raise EndedAtOnce(status)


def text_of(error: BaseException) -> str:
    """Return the message of an exception in one line."""
    try:
        return " ".join(str(error).split())
    except Exception as second:  # noqa: BLE001, because the user's code makes this text
        return f"its text cannot be read: {type(second).__name__}"


def _tell_of_thread(lines: "_Lines", failed: threading.ExceptHookArgs) -> None:
    """Report a thread that fails or tries to end the program: only the thread ends, and no caller gets the error."""
    if failed.exc_type is not SystemExit and failed.exc_value is not None:
        is_end = isinstance(failed.exc_value, EndedAtOnce)
        text = text_of(failed.exc_value)
        what = f"os._exit({text})" if is_end else f"{failed.exc_type.__name__}{': ' if text else ''}{text}"
        lines.fail(traceback.walk_tb(failed.exc_traceback), what)


class _Lines(io.RawIOBase):
    """Standard output for the user's code: prints each line as a note with its place."""

    def __init__(self, source: str, errors: TextIO) -> None:
        super().__init__()
        self._source = source
        self._errors = errors
        self._line = b""
        self._place = source

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2  # the notes go to standard error

    def write(self, data: Any) -> int:
        *lines, self._line = (self._line + bytes(data)).split(b"\n")
        self._place = self._caller()
        for line in lines:
            self._print(line)
        return len(data)

    def end_line(self) -> None:
        """Report a last line without a newline."""
        if self._line:
            self._print(self._line)
            self._line = b""

    def _print(self, line: bytes) -> None:
        self._tell(f"{self._place} prints: {line.decode('utf-8', 'surrogateescape')}")

    def warn(self, message: str) -> None:
        """Report a warning of the `warnings` module."""
        self._tell(f"{self._caller()} warns: {message}")

    def fail(self, frames: Iterable[tuple[FrameType, int]], what: str) -> None:
        """Report a thread that has failed."""
        self._tell(f"{place_of(self._source, frames)}: a thread ends by {what}")

    def _caller(self) -> str:
        return place_of(self._source, reversed(list(traceback.walk_stack(sys._getframe()))))

    def _tell(self, text: str) -> None:
        with contextlib.redirect_stderr(self._errors):
            tell("note", text)


class HeldErrors(io.StringIO):
    """Standard error for imported code: holds its output until the import has succeeded or failed."""

    def __init__(self, errors: TextIO) -> None:
        super().__init__()
        self._errors = errors
        self._is_held = True

    def write(self, text: str) -> int:
        return super().write(text) if self._is_held else self._errors.write(text)

    def close(self) -> None:
        """Stay open: the user's code does not own the stream."""

    def take(self) -> str:
        """Return and drop the held text, which the caller reports."""
        text = self.getvalue()
        self.truncate(0)
        return text

    def let_go(self) -> None:
        """Write the held text, and all later text at once: a logger may still use this stream."""
        self._is_held = False
        text = self.take()
        self._errors.write(text if not text or text.endswith("\n") else f"{text}\n")  # such as a prompt


class _Deaf(io.TextIOBase):
    """Standard input for imported code, text and bytes: refuses to be read."""

    @property
    def buffer(self) -> "_Deaf":
        return self

    def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
        raise RuntimeError("asks for input while it is imported, which every command does")

    read = readline


def _tell_warning(told: _Lines, message: object, category: type[Warning], *place: object, **options: object) -> None:
    told.warn(f"{category.__name__}: {message}")
