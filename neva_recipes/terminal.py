"""All output to a terminal: control characters are shown as text and not sent to the terminal.

Names, paths, files and messages may hold escape sequences that repaint lines, and marks that change the direction of
writing. `guarded` wraps standard output and standard error, so that everything that a command prints is filtered.

Standard library only, because every package prints.
"""

import contextlib
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

__all__ = [
    "OutputLost",
    "fold",
    "guarded",
    "one_line",
    "output_lines",
    "print_document",
    "print_line",
    "print_log",
    "print_progress",
    "print_text",
    "shows_colour",
    "streams_are_one",
    "tell",
    "threads_print_to",
    "visible",
]

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of Unicode's bidirectional algorithm (UAX #9)
    "\u200b\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # other invisible separators and tags
    "\ud800-\udfff]"  # surrogates, with which Python represents bytes that are not UTF-8
)
_COLOUR = re.compile("(\x1b\\[[0-9;:]*m)")
"""The escape sequence for colour and weight (ECMA-48, SGR), which moves and hides no other text."""

_LONGEST_WORD = 300
"""A file name has at most 255 bytes, so paths and names that can be pasted are not shortened."""

_LONGEST_MESSAGE = 2000

_USUAL_WIDTH = 80

_VERBS = ("begins", "does", "follows", "goes", "lists", "says", "sets", "shows", "starts", "tells", "trains", "writes")

_COMMAND = re.compile(rf"nemo-run .*?(?=[;:,)](?: |$)| (?:{'|'.join(_VERBS)}) |$)")
"""A command in a message; it ends at a punctuation mark or at a verb of `_VERBS`."""

_QUOTED_PATH = re.compile(r"""(?<![^\s=(])'[^'\n/]*/[^'\n]*'(?:"'"'[^'\n]*')*""")
"""A path in shell quotes. The pattern rescans no text from within a word or after a slash, to stay linear in time."""

_PATH = re.compile(rf"{_QUOTED_PATH.pattern}\S*|(?<!\S)\S*/\S*")

_PATH_START = re.compile(r"(?<![\w/.~-])/(?=[^\s/])")
"""The beginning of an absolute path."""

_PATH_EDGE = re.compile(r"(?<=[^\s/])(?:/|(?=[\s:;,)'\"])|$)")
"""The end of a path or of a folder in it, if it exists."""

_LONGEST_PATH = 4096
"""PATH_MAX of Linux."""

_LABEL = re.compile(r"( *)(?:[^\s:/][^:/]{0,30}: +)?")
"""The label of a line such as `  reason:  ...`; its indent is the first group."""

_SPACE = "\0"
"""Placeholder for a space at which a folded text is not broken; `visible` leaves no such character in a text."""


class OutputLost(OSError):
    """Standard output cannot be written, for another reason than a closed pipe."""


def visible(text: str, colours: bool = False) -> str:
    r"""Return a text with escapes such as `\x1b` and `\u202e` in place of characters that control a terminal.

    Args:
        text: The text; keeps tabs and newlines.
        colours: Whether to keep sequences that set colours.
    """
    if text.isascii() and text.isprintable():  # a fast path for most texts
        return text
    if not colours:
        return _STEERING.sub(_written_out, text)
    parts = _COLOUR.split(text)  # every second part is a colour
    return "".join(part if number % 2 else visible(part) for number, part in enumerate(parts))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    r"""Return a text as `visible` does, with tabs and newlines as `\t` and `\n`: for a name within a line."""
    return visible(text).replace("\t", "\\t").replace("\n", "\\n")


def tell(kind: str, message: str) -> None:
    """Print a line on standard error, such as `error: ...`; shortens very long words and messages.

    For a terminal, the line is folded to its width, between words and never within a command that can be pasted.

    Args:
        kind: error, warning or note.
        message: The message; its lines are joined.
    """
    line = f"{kind}: {_shortened(visible(' '.join(message.splitlines())))}"
    with contextlib.suppress(OSError):  # there is no other place to report it
        print(_for_terminal(line, sys.stderr, keeps_commands=True), file=sys.stderr, flush=True)


def print_line(line: str, stream: TextIO) -> None:
    """Print a line with paths and commands; folds it for a terminal as `tell` does."""
    print(_for_terminal(visible(line), stream, keeps_commands=True), file=stream, flush=True)


def print_text(text: str) -> None:
    """Print lines on standard output; for a terminal, lines that are longer than its width are folded.

    Continuation lines are indented relative to the value after the label, or relative to the label if that would be too
    wide.
    """
    print(*output_lines(text.split("\n")), sep="\n", flush=True)


def output_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that `print_text` prints."""
    width = _width_of(sys.stdout)
    for line in lines:
        yield from _below_label(visible(line), width)


def _below_label(line: str, width: int | None) -> list[str]:
    if width is None or len(line) <= width:
        return [line]
    label = _LABEL.match(line)
    assert label is not None  # it matches the empty text too
    lines: list[str] = []
    for further in (" " * (label.end() + 2), f"{label[1]}  "):
        lines = fold(line[len(label[1]) :], width, label[1], further, keeps_commands=True)
        if max(map(len, lines)) <= width:
            break
    return lines


def fold(
    text: str, width: int, indent: str = "", further: str | None = None, *, keeps_commands: bool = False
) -> list[str]:
    """Return a text folded into lines, broken only at spaces: a longer word, such as a path, stays whole.

    A path in quotes is not broken at its own spaces, and neither is an absolute path without quotes, as far as it
    exists on this machine: where another one ends is unknown.

    Args:
        text: The text.
        width: Columns of a line.
        indent: Indent of the first line.
        further: Indent of the other lines; `None` means `indent`.
        keeps_commands: Whether to keep commands whole too, for a text of one or two sentences.
    """
    import textwrap  # imported here, because most commands fold nothing

    text = _with_whole_paths(text)
    for kept in (_QUOTED_PATH, _COMMAND) if keeps_commands else (_QUOTED_PATH,):
        text = kept.sub(lambda match: match[0].replace(" ", _SPACE), text)
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_SPACE, " ") for line in lines] or [""]


def _with_whole_paths(text: str) -> str:
    """Return a text with placeholders for the spaces in absolute paths, as far as the paths exist on this machine."""
    parts, end = [], 0
    for match in _PATH_START.finditer(text) if " " in text else ():
        if match.start() >= end:
            path = _existing_path(text[match.start() : match.start() + _LONGEST_PATH])
            parts += [text[end : match.start()], path.replace(" ", _SPACE)]
            end = match.start() + len(path)
    return "".join([*parts, text[end:]])


def _existing_path(text: str) -> str:
    """Return the longest beginning of a text that is the path of a file or folder; empty if there is none."""
    path = ""
    for edge in _PATH_EDGE.finditer(text):
        if os.path.lexists(text[: edge.start()]):
            path = text[: edge.start()]
        elif edge[0] == "/":  # nothing is in a folder that does not exist
            break
    return path


def _for_terminal(line: str, stream: TextIO, *, keeps_commands: bool) -> str:
    """Return a line folded to the width of a terminal, which would otherwise break it anywhere."""
    width = _width_of(stream)
    if width is None or len(line) <= width:
        return line
    return "\n".join(fold(line, width, further="  ", keeps_commands=keeps_commands))


def _width_of(stream: TextIO) -> int | None:
    """Return the columns of a terminal; `None` for a file or a pipe."""
    if not stream.isatty():
        return None
    return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH  # some terminals report 0


def _shortened(text: str) -> str:
    words = re.sub(rf"[^\s/]{{{_LONGEST_WORD + 1},}}", lambda match: _without_middle(match[0], _LONGEST_WORD), text)
    return _without_middle(words, _LONGEST_MESSAGE)


def _without_middle(text: str, longest: int) -> str:
    """Return a text without its middle if it is too long; start and end hold the value and what was expected."""
    if len(text) <= longest:
        return text
    kept = longest // 3
    return f"{text[:kept]}...({len(text) - 2 * kept:,} characters)...{text[-kept:]}"


def print_document(text: str) -> None:
    """Print a text without changes: a document for programs, or a text that `visible` has returned."""
    _writer(sys.stdout)(text)


def print_progress(line: str, *, is_last: bool) -> None:
    """Print a progress line on standard error; on a terminal it overwrites the previous one.

    Args:
        line: The line.
        is_last: Whether it is the last one, which stays.
    """
    width = _width_of(sys.stderr)
    if width is None:
        print(line, file=sys.stderr, flush=True)
        return
    # A line that fills the terminal would not be overwritten completely.
    shown = one_line(line)[: width - 1]
    with contextlib.suppress(OSError):
        _writer(sys.stderr)(f"\r{shown}\x1b[K" + ("\n" if is_last else ""))
        sys.stderr.flush()


def print_log(line: str) -> None:
    """Print a line of a job's log: keeps colours and escapes all other control characters.

    For a terminal, the line is folded only if its edge would cut a path or a word of a sentence, so that columns stay
    aligned.
    """
    encoding = sys.stdout.encoding or "utf-8"
    shown = visible(line, colours=True)
    if "\x1b" not in shown and _is_cut(shown, _width_of(sys.stdout)):
        shown = _for_terminal(shown, sys.stdout, keeps_commands=False)
    _writer(sys.stdout)(shown.encode(encoding, "replace").decode(encoding) + "\n")


def _is_cut(line: str, width: int | None) -> bool:
    if width is None or len(line) <= width:
        return False
    is_sentence = "  " not in line.strip()
    if is_sentence and any(" " not in line[edge - 1 : edge + 1] for edge in range(width, len(line), width)):
        return True
    if "/" not in line:
        return False
    return any(
        match.start() // width != (match.end() - 1) // width for match in _PATH.finditer(_with_whole_paths(line))
    )


def shows_colour() -> bool:
    """Return whether standard output is a terminal with colours and the user has not turned them off."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def streams_are_one() -> bool:
    """Return whether standard output and standard error are the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:
        return False


def threads_print_to(stream: TextIO) -> None:
    """Redirect the output of all other threads to a stream, so that it does not get into the document."""
    if isinstance(sys.stdout, _Door):
        sys.stdout.of_threads = stream


def _writer(stream: TextIO) -> Callable[[str], int]:
    return stream.write_as_it_is if isinstance(stream, _Door) else stream.write


class _Door:
    """A text stream that passes writes through `visible` and delegates everything else to the wrapped stream.

    Args:
        stream: The wrapped stream.
        is_output: Whether it is standard output, whose errors are raised; errors of standard error cannot be reported.
    """

    def __init__(self, stream: TextIO, is_output: bool) -> None:
        self._stream = stream
        self._is_output = is_output
        self._thread = threading.get_ident()
        self.of_threads: TextIO | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self.of_threads is not None and threading.get_ident() != self._thread:
            return self.of_threads.write(text)
        self.write_as_it_is(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def write_as_it_is(self, text: str) -> int:
        with self._failures():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._failures():
            self._stream.flush()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._is_output and isinstance(error, BrokenPipeError):
                raise
            if self._is_output:
                raise OutputLost(f"standard output cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Filter standard output and standard error through `visible`.

    Raises:
        OutputLost: Standard output is closed.
    """
    lost = _open_what_is_closed()
    given = sys.stdout, sys.stderr
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # do not fail on a name that the terminal cannot show
    sys.stdout, sys.stderr = cast(TextIO, _Door(sys.stdout, True)), cast(TextIO, _Door(sys.stderr, False))
    try:
        if lost:
            raise OutputLost("standard output is closed: send it to a file, or to /dev/null")
        yield
    finally:
        sys.stdout, sys.stderr = given


def _open_what_is_closed() -> bool:
    """Open closed standard streams as /dev/null, and return whether standard output was closed.

    Otherwise the next opened file would get the descriptor of such a stream, and programs would read or write it.
    """
    lost = sys.stdout is None
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    # According to typeshed the streams are never None.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    return lost
