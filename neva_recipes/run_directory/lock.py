"""The lock that allows only one start at a time in a run directory."""

import fcntl
import os
import threading
from pathlib import Path

from neva_recipes.run_directory.layout import LOCK_FILE
from neva_recipes.terminal import tell

__all__ = ["NoLocksError", "acquire_lock", "lock_or_warn"]

_PATIENCE_SECONDS = 10.0


class NoLocksError(OSError):
    """The file system has no locks, or its lock server does not answer."""


def acquire_lock(run_dir: Path) -> int | None:
    """Return an open file descriptor that holds the lock, or `None` if another process holds it.

    The lock lasts until every copy of the descriptor is closed, so it ends with the processes that hold it, however
    they end. Does not wait for the lock, and waits only briefly for a lock server.

    Args:
        run_dir: The run directory.

    Raises:
        NoLocksError: The file system has no working locks.
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
    """As `acquire_lock`, but without working locks, print a warning and return a descriptor without a lock.

    Then only the state shows whether the run is in use, and two simultaneous starts can both find it free.

    Raises:
        OSError: The directory cannot be written.
    """
    try:
        return acquire_lock(run_dir)
    except NoLocksError as error:
        tell("warning", f"{error}; do not start or resume a run there from two places at once")
        return _open(run_dir)


def _open(run_dir: Path) -> int:
    # A network file system grants an exclusive lock only on a file that is open for writing.
    return os.open(run_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _lock(descriptor: int, run_dir: Path) -> bool:
    """Return whether the lock was free.

    On a network file system even a non-blocking request can hang on a dead server, so a thread makes it.
    """
    answers: list[OSError | None] = []
    own = os.dup(descriptor)  # stays open during the request, whatever the caller does

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
