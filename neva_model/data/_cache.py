"""Files that the first process to need them makes for all processes of a run."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from neva_recipes.config import RunError

__all__ = ["build_once", "lock_file"]


def build_once(folder: Path, sources: tuple[str, ...], suffix: str, build: Callable[[Path], None]) -> Path:
    """Return a file that `build` has written, by this process or another, now or in an earlier run.

    Args:
        folder: Where the file is kept; created if missing.
        sources: Everything the content depends on; other sources make another file.
        suffix: End of the file name.
        build: Writes the content to the path it is given.

    Raises:
        RunError: The folder cannot be written to.
    """
    digest = hashlib.sha256("\0".join(sources).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = folder / f"{digest}{suffix}"
    # A killed process leaves an incomplete file behind under this name only.
    unfinished = folder / f"{digest}.{os.getpid()}.unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock_file(folder / f"{digest}.lock"):
            if not target.exists():
                build(unfinished)
                unfinished.rename(target)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written to: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return target


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold a lock between processes, on all nodes where the file system supports it.

    Where it does not, processes do the same work twice; what they write is renamed into place and stays whole.
    """
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
