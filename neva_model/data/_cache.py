"""Files that the first process to need them makes for all processes of a run."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from neva_recipes.config import DataError, RunError
from neva_recipes.sources.registry import source_version
from neva_recipes.storage.digests import digest_of

__all__ = ["build_once", "data_file_state", "lock_file"]

_UNFINISHED = ".unfinished"


def data_file_state(path: Path) -> tuple[str, ...]:
    """Return what distinguishes a data file, as it is now, from other files and from itself after a change.

    The content of a file that a package reads changes with the code of that package too.

    Raises:
        DataError: The file cannot be looked up.
        RecipeError: The package that reads it cannot be used.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return str(path.resolve()), str(status.st_size), str(status.st_mtime_ns), *source_version(path)


def build_once(folder: Path, sources: tuple[str, ...], suffix: str, build: Callable[[Path], None]) -> Path:
    """Return a file written by `build`, in this process or another, now or in an earlier run.

    Args:
        folder: Folder for the file; created if missing.
        sources: Everything that the content depends on; different sources make different files.
        suffix: End of the file name.
        build: Writes the content to the path that it is given.

    Raises:
        RunError: The folder cannot be written to.
    """
    name = hashlib.sha256("\0".join(sources).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target, digest = folder / f"{name}{suffix}", folder / f"{name}{suffix}.digest"
    # Killed processes leave incomplete files only under such names.
    unfinished = folder / f"{name}.{os.getpid()}{_UNFINISHED}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Every process checks for itself before it waits for others.
        is_whole = _is_whole(target, digest)
        with lock_file(folder / f"{name}.lock"):
            if not is_whole and not _is_whole(target, digest):
                if target.exists() and digest.exists():
                    print(f"{target}: is damaged, and made anew", flush=True)
                build(unfinished)
                value = digest_of(unfinished)
                unfinished.rename(target)
                unfinished.write_text(value, encoding="ascii")
                unfinished.rename(digest)
        _sweep(folder)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written to: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return target


def _is_whole(target: Path, digest: Path) -> bool:
    """Return whether a file is unchanged since it was built."""
    try:
        return digest.read_text(encoding="ascii", errors="replace") == digest_of(target)
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Remove the remains of killed processes: a file whose lock is free or missing is not being written.

    On a file system without locks this is unknown, and the file stays.
    """
    for path in folder.glob(f"*{_UNFINISHED}"):
        lock = folder / f"{path.name.partition('.')[0]}.lock"
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            if lock.exists():
                fcntl.flock(held.enter_context(lock.open("a")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold a lock between processes, on all nodes if the file system supports it.

    Without support, processes do the same work twice; they rename their files into place, so files stay complete.
    """
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
