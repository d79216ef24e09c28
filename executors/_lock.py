"""The lock that keeps a run directory to one start at a time."""

import fcntl
import os
import sys
import threading
from pathlib import Path

__all__ = ["NoLocksError", "acquire_lock", "lock_or_warn"]

_PATIENCE_SECONDS = 10.0


class NoLocksError(OSError):
    """The file system has no locks, or what keeps them does not answer."""


def acquire_lock(run_dir: Path) -> int | None:
    """Return an open file descriptor that holds the lock, or none if another process holds it.

    The lock lasts until every copy of the descriptor is closed, so it goes with the processes that hold it, however
    they end. Nobody waits for it, nor for long on a server that should know of it.

    Args:
        run_dir: The run directory.

    Raises:
        NoLocksError: Nothing can be locked there.
        OSError: The directory cannot be written.
    """
    descriptor = _open(run_dir)
    try:
        if _lock(descriptor, run_dir):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def lock_or_warn(run_dir: Path) -> int | None:
    """As `acquire_lock`; where nothing can be locked, say so on stderr and return a descriptor without a lock.

    The state of the run alone tells then, which two that start it in the same moment can both see as free.

    Raises:
        OSError: The directory cannot be written.
    """
    try:
        return acquire_lock(run_dir)
    except NoLocksError as error:
        print(f"warning: {error}; do not start or resume a run there from two places at once", file=sys.stderr)
        return _open(run_dir)


def _open(run_dir: Path) -> int:
    # A network file system locks for writing only what is open for writing.
    return os.open(run_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _lock(descriptor: int, run_dir: Path) -> bool:
    """Return whether the lock was free.

    On a network file system even a request that must not wait goes to a server that may be gone, so it is made aside.
    """
    answers: list[OSError | None] = []
    own = os.dup(descriptor)  # stays open as long as the request is under way, whatever the caller does

    def request() -> None:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
            answers.append(None)
        except OSError as error:
            answers.append(error)
        finally:
            os.close(own)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    if not answers:
        raise NoLocksError(f"{run_dir}: no answer to a request for a lock within {_PATIENCE_SECONDS:.0f} s")
    (error,) = answers
    if error is not None and not isinstance(error, BlockingIOError):
        raise NoLocksError(f"{run_dir}: the file system has no locks ({error.strerror})")
    return error is None
