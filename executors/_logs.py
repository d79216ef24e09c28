"""What ranks print: from bytes on a pipe to lines in files, and back to whoever reads along. Standard library only."""

import os
from pathlib import Path

__all__ = ["LineAssembler", "LogReader", "LogWriter"]

_LONGEST_LINE = 65536
_PROGRESS_INTERVAL = 10.0


class LineAssembler:
    """Makes lines of one rank's output.

    A progress bar rewrites its line by carriage returns, thousands of times. Of these the first is kept, then one every
    ten seconds, and the last. A line longer than 64 KiB is broken.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._last_progress = b""
        self._last_time = -_PROGRESS_INTERVAL

    def feed(self, data: bytes, time: float) -> list[bytes]:
        """Return the lines that `data` completes, without their ends.

        Args:
            data: What was read from the pipe.
            time: When, in seconds of any clock that does not go back.
        """
        *complete, rest = (self._rest + data).split(b"\n")
        lines = [line for segment in complete if (line := self._close(segment)) is not None]
        if b"\r" in rest:
            *updates, tail = rest.split(b"\r")
            latest = _last_visible(updates)
            if latest and latest != self._last_progress and time - self._last_time >= _PROGRESS_INTERVAL:
                lines.append(latest)
                self._last_progress, self._last_time = latest, time
            rest = latest + b"\r" + tail
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        self._rest = rest
        return lines

    def finish(self) -> list[bytes]:
        """Return the last line if it was never ended."""
        segment, self._rest = self._rest, b""
        line = self._close(segment) if segment else None
        return [line] if line is not None else []

    def _close(self, segment: bytes) -> bytes | None:
        """Return what a terminal would show of a line at its end, or none if that is in the log already."""
        pieces = segment.split(b"\r")
        line = _last_visible(pieces) if len(pieces) > 1 else segment
        repeated = len(pieces) > 1 and line == self._last_progress
        self._last_progress = b""
        return None if repeated and line else line


def _last_visible(pieces: list[bytes]) -> bytes:
    return next((piece for piece in reversed(pieces) if piece.strip()), b"")


class LogWriter:
    """Appends to a log file and never fails: a full disk costs lines of the log, not the run."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        self._lost = 0
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return

    def write(self, data: bytes) -> None:
        """Append `data`; once writing is possible again after a failure, a line says how much is missing."""
        if self._descriptor is None:
            return
        pending = b"[%d bytes of log could not be written]\n" % self._lost + data if self._lost else data
        try:
            while pending:
                pending = pending[os.write(self._descriptor, pending) :]
            self._lost = 0
        except OSError:
            self._lost += min(len(pending), len(data))

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)


class LogReader:
    """Reads a log file while it grows."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self._position = position
        self._rest = b""

    def read_lines(self) -> list[str]:
        """Return the complete lines that have come since the last call, without their ends."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return []
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def read_rest(self) -> list[str]:
        """Return the last line if it has no end."""
        rest, self._rest = self._rest, b""
        return [rest.decode(errors="replace")] if rest else []
