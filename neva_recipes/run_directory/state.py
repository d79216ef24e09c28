"""state.json: the single record of a run's state, complete at every moment. Standard library only."""

import contextlib
import errno
import json
import os
import stat
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neva_recipes.run_directory.attempt import before, let_go, put_back
from neva_recipes.run_directory.layout import STATE_FILE, joined_log, metrics_file
from neva_recipes.run_directory.progress import steps_file
from neva_recipes.run_directory.removal import sync_files

__all__ = [
    "ACTIVE",
    "FINAL",
    "STATES",
    "UNDER_WAY",
    "State",
    "clear_unfinished",
    "first_files",
    "now",
    "read_json",
    "read_small_text",
    "read_state",
    "reserve_space",
    "seconds_so_far",
    "sync_tree",
    "write_atomically",
    "write_state",
]

FINAL = ("succeeded", "failed", "cancelled")
"""States that only a resume changes."""

UNDER_WAY = ("queued", "running")
"""States of a run that its executor knows and that has not ended."""

ACTIVE = ("created", *UNDER_WAY)
"""States that are not final."""

STATES = (*ACTIVE, *FINAL)
"""The states that state.json may hold."""

_RESERVE = ".reserve"
_UNFINISHED = ".new"
_RESERVED_TEXT = "reserved for the final state of the run, should the disk be full\n" * 150
_SYNCS_AT_ONCE = 16
_STALE_TRIES = 3
_LARGEST_BYTES = 2**28
_LONGEST_SECONDS = 1e10


@dataclass(frozen=True, kw_only=True)
class State:
    """Content of state.json.

    Attributes:
        state: One of `STATES`; only readers conclude that a run is `lost`.
        attempt: 1 for the first start, one more for each resume.
        exit_code: The exit code of the last attempt, once ended.
        reason: One line about why it failed or was cancelled, or what it waits for; for a run that has succeeded, why a
            later attempt to resume it failed before it trained.
        started: When the ranks were started (ISO 8601).
        ended: When all ranks had ended (ISO 8601).
        earlier_seconds: Total duration of the earlier attempts.
        supervisor: What identifies the run for its executor; for the local executor, the supervisor process.
    """

    state: str
    attempt: int = 1
    exit_code: int | None = None
    reason: str | None = None
    started: str | None = None
    ended: str | None = None
    earlier_seconds: float = 0.0
    supervisor: dict[str, Any] = field(default_factory=dict)

    @property
    def has_no_end(self) -> bool:
        """Whether it was started and has ended at an unknown time."""
        return self.started is not None and self.ended is None and self.exit_code is not None


def now() -> str:
    """Return the present time in the format of state.json."""
    return datetime.now(UTC).isoformat()


def seconds_so_far(run_dir: Path, state: State) -> float:
    """Return the total duration of all attempts of a run, the last one included.

    If the end of the last attempt is unknown, takes the time of its last step, metrics or log line.

    Args:
        run_dir: The run directory.
        state: State of the run.
    """
    if state.started is None:
        return state.earlier_seconds
    began = datetime.fromisoformat(state.started).timestamp()
    ends = [began]  # the clock may have been set back
    if state.ended is not None:
        ends.append(datetime.fromisoformat(state.ended).timestamp())
    else:
        for path in (metrics_file(run_dir), steps_file(run_dir), joined_log(run_dir)):
            with contextlib.suppress(OSError):
                ends.append(path.stat().st_mtime)
    return state.earlier_seconds + max(ends) - began


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Replace a file atomically: readers, even after a crash, see the old or the new content, never a part.

    The last of several writers wins. `clear_unfinished` removes the file that a killed writer leaves. A file that root
    writes gets the owner of the folder, because the run may belong to another user.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}{_UNFINISHED}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            folder = path.parent.stat()
            if os.geteuid() == 0 and folder.st_uid != 0:
                with contextlib.suppress(OSError):  # some file systems do not allow this to root
                    os.fchown(descriptor, folder.st_uid, folder.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_files([path.parent])


def clear_unfinished(directory: Path) -> None:
    """Remove the files that killed writers have left; only for the holder of the run directory's lock."""
    for path in directory.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def reserve_space(run_dir: Path) -> None:
    """Reserve the disk space that the final state will need if the run fills the disk."""
    write_atomically(run_dir / _RESERVE, _RESERVED_TEXT)


def first_files(state: State) -> dict[str, str]:
    """Return the files of this module in a new run directory: name and text of each."""
    return {_RESERVE: _RESERVED_TEXT, STATE_FILE: _text_of(state)}


def sync_tree(folder: Path) -> None:
    """Sync everything below a folder to the disk, so that it survives a crash of the machine.

    Syncs several files at a time, so that the file system can combine them in one write of its journal.

    Raises:
        OSError: A file could not be written.
    """
    from concurrent.futures import ThreadPoolExecutor

    paths = [path for place, _, names in os.walk(folder) for path in (place, *(f"{place}/{name}" for name in names))]
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        list(pool.map(lambda path: sync_files([path]), paths))


def write_state(run_dir: Path, state: State) -> None:
    """Write state.json; on a full disk, frees the reserved space for it.

    If an attempt has failed before it trained, restores the run as it was before: its files and its success.
    """
    is_undone = state.state == "failed" and before(run_dir).is_dir() and _undo(run_dir)
    if is_undone:
        state = _as_before(run_dir, state)
    text = _text_of(state)
    try:
        write_atomically(run_dir / STATE_FILE, text)
    except OSError:
        with contextlib.suppress(OSError):
            (run_dir / _RESERVE).unlink()
        write_atomically(run_dir / STATE_FILE, text)
    if is_undone:
        let_go(run_dir)


def _undo(run_dir: Path) -> bool:
    """Restore the files of a run from before an attempt; return whether that succeeded. If not, the backup stays."""
    try:
        put_back(run_dir)
    except OSError:
        return False
    return True


def _as_before(run_dir: Path, failed: State) -> State:
    """Return the state of a run after an attempt that failed before it trained."""
    try:
        earlier = read_state(before(run_dir))
    except (OSError, ValueError):
        return failed
    if earlier.state != "succeeded":
        return failed
    reason = f"not resumed: {failed.reason}"
    return replace(
        failed,
        state="succeeded",
        reason=reason,
        started=earlier.started,
        ended=earlier.ended,
        earlier_seconds=earlier.earlier_seconds,
    )


def _text_of(state: State) -> str:
    return json.dumps(asdict(state), indent=2) + "\n"


def read_state(run_dir: Path) -> State:
    """Return the content of state.json.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not of the form that `write_state` writes.
    """
    content = read_json(run_dir / STATE_FILE)
    try:
        state = State(**content)
        for moment in (state.started, state.ended):
            if moment is not None:
                datetime.fromisoformat(moment).astimezone()
        kinds = ((state.attempt, int), (state.exit_code, int | None), (state.reason, str | None))
        if state.state not in STATES or not all(isinstance(value, kind) for value, kind in kinds):
            raise TypeError(f"state {state.state!r}")
        if not isinstance(state.supervisor, dict):
            raise TypeError("supervisor")
        if not isinstance(state.earlier_seconds, int | float) or not 0 <= state.earlier_seconds < _LONGEST_SECONDS:
            raise TypeError("earlier_seconds")
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not the state of a run: {error}") from None
    return state


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; tries again if a network file system reports it as stale after a replacement.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON.
    """
    for _ in range(_STALE_TRIES):
        try:
            return json.loads(read_small_text(path))
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return json.loads(read_small_text(path))


def read_small_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a file that a user may have replaced by anything.

    Args:
        path: The file.
        errors: How to handle bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        OSError: It cannot be read, is no regular file (reading could block forever), or is far too large.
        ValueError: It is not UTF-8.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no file", str(path))
        if status.st_size > _LARGEST_BYTES:
            raise OSError(errno.EFBIG, f"{status.st_size:,} bytes are more than ours has", str(path))
        return file.read().decode(errors=errors)
