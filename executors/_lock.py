"""The lock that keeps a run directory to one start at a time."""

import errno
import fcntl
import os
import time
from pathlib import Path

__all__ = ["acquire_lock"]


def acquire_lock(run_dir: Path, patience: float = 0.0) -> int | None:
    """Return an open file descriptor that holds the lock, or none if another process holds it.

    The lock lasts until every copy of the descriptor is closed, so it goes with the processes that hold it, however
    they end. On a file system without locks nothing is locked, and the state of the run alone tells.

    Args:
        run_dir: The run directory.
        patience: Seconds to go on trying.

    Raises:
        OSError: The directory cannot be written.
    """
    deadline = time.monotonic() + patience
    descriptor = os.open(run_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                return descriptor
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        else:
            return descriptor
