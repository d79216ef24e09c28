"""Splits the output of ranks into lines, writes log files, and reads them while they grow. Standard library only."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LineAssembler", "LogReader", "LogWriter", "position_of_tail", "position_of_time"]

_LONGEST_LINE = 65536
_PROGRESS_INTERVAL = 10.0
_MARK_INTERVAL = 10.0
_BLOCK = 1 << 20


class LineAssembler:
    """Splits the output of one rank into lines.

    A progress bar rewrites its line with carriage returns, thousands of times. The first version is kept, then one
    every ten seconds, and the last. A line longer than 64 KiB is split.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._last_progress = b""
        self._last_time = -_PROGRESS_INTERVAL

    def feed(self, data: bytes, time: float) -> list[bytes]:
        """Return the lines that `data` completes, without newlines.

        Args:
            data: Bytes read from the pipe.
            time: Time of reading, in seconds of a monotonic clock.
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
        """Return the last line if it has no newline."""
        segment, self._rest = self._rest, b""
        line = self._close(segment) if segment else None
        return [line] if line is not None else []

    def _close(self, segment: bytes) -> bytes | None:
        """Return the final version of a line as a terminal shows it, or `None` if the log already has it."""
        pieces = segment.split(b"\r")
        line = _last_visible(pieces) if len(pieces) > 1 else segment
        repeated = len(pieces) > 1 and line == self._last_progress
        self._last_progress = b""
        return None if repeated and line else line


def _last_visible(pieces: list[bytes]) -> bytes:
    return next((piece for piece in reversed(pieces) if piece.strip()), b"")


class LogWriter:
    """Appends to a log file and never fails: a full disk loses lines of the log but does not end the run.

    Writes a second file LOG.times next to LOG.log. While the log grows, this file gets the time (seconds since 1970)
    and the position in the log every ten seconds.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = _open_to_append(path)
        self._marks = _open_to_append(_marks_path(path))
        self._lost = 0
        self._marked = -_MARK_INTERVAL

    def write(self, data: bytes) -> None:
        """Append `data`; the first write after a failure also adds a line that says how many bytes are missing."""
        if self._descriptor is None:
            return
        pending = b"[%d bytes of log could not be written]\n" % self._lost + data if self._lost else data
        try:
            self._mark(self._descriptor)
            while pending:
                pending = pending[os.write(self._descriptor, pending) :]
            self._lost = 0
        except OSError:
            self._lost += min(len(pending), len(data))

    def close(self) -> None:
        """Close the files."""
        for descriptor in (self._descriptor, self._marks):
            if descriptor is not None:
                os.close(descriptor)

    def _mark(self, descriptor: int) -> None:
        if self._marks is not None and time.monotonic() - self._marked >= _MARK_INTERVAL:
            self._marked = time.monotonic()
            os.write(self._marks, b"%.3f %d\n" % (time.time(), os.fstat(descriptor).st_size))


def _open_to_append(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return None


def _marks_path(log: Path) -> Path:
    return log.with_suffix(".times")


def position_of_time(log: Path, moment: float) -> int | None:
    """Return the position in a log where the lines written since a time begin; up to ten seconds too early.

    Args:
        log: The log file.
        moment: Seconds since 1970.

    Returns:
        Position in bytes; `None` if the log has no file of times.
    """
    try:
        # The last line may be unfinished.
        lines = _marks_path(log).read_text(encoding="ascii", errors="replace").split("\n")[:-1]
        marks = [(float(words[0]), int(words[1])) for line in lines if len(words := line.split()) == 2]
    except (OSError, ValueError):
        return None
    if not marks:
        return None
    # From the end, because setting back the clock makes the times of earlier marks later.
    position = log.stat().st_size
    for time_of_mark, start in reversed(marks):
        if time_of_mark + _MARK_INTERVAL < moment:
            break
        position = start
    return position


def position_of_tail(log: Path, count: int) -> int:
    """Return the position in a log where its last `count` lines begin."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            missing, position = count, end
            while position:
                start = max(0, position - _BLOCK)
                file.seek(start)
                block = file.read(position - start)
                if position == end:
                    missing += block.endswith(b"\n")  # ends the last line and begins no further one
                breaks = block.count(b"\n")
                if breaks >= missing:
                    place = len(block)
                    for _ in range(missing):
                        place = block.rindex(b"\n", 0, place)
                    return start + place + 1
                missing, position = missing - breaks, start
    except FileNotFoundError:
        pass
    return 0


class LogReader:
    """Reads a log file while it grows.

    Args:
        path: The log file, which need not exist yet.
        position: Position to begin at, in bytes.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self._position = position
        self._rest = b""

    def batches(self) -> Iterator[list[str]]:
        """Yield the complete lines written since the last call, without newlines, some thousands at a time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                while data := file.read(_BLOCK):
                    self._position += len(data)
                    *lines, self._rest = (self._rest + data).split(b"\n")
                    if lines:
                        yield [line.decode(errors="replace") for line in lines]
        except FileNotFoundError:
            return

    def read_lines(self) -> list[str]:
        """Return the complete lines written since the last call, without newlines."""
        return [line for batch in self.batches() for line in batch]

    def read_rest(self) -> list[str]:
        """Return the last line if it has no newline."""
        rest, self._rest = self._rest, b""
        return [rest.decode(errors="replace")] if rest else []
