"""The lock that keeps a run directory to one start at a time."""

import fcntl
import os
from pathlib import Path

__all__ = ["acquire_lock"]


def acquire_lock(run_dir: Path) -> int | None:
    """Return an open file descriptor that holds the lock, or none if another process holds it.

    The lock lasts until every copy of the descriptor is closed, so it goes with the processes that hold it, however
    they end. On a file system without locks nothing is locked, and the state of the run alone tells.

    Args:
        run_dir: The run directory.

    Raises:
        OSError: The directory cannot be written.
    """
    descriptor = os.open(run_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        pass  # a file system without locks
    return descriptor
