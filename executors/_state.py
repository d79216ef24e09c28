"""state.json: the one record of how a run stands, whole at every moment. Standard library only."""

import contextlib
import errno
import json
import os
import stat
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = [
    "FINAL",
    "REMOVED",
    "STATES",
    "State",
    "clear_unfinished",
    "first_files",
    "now",
    "read_json",
    "read_state",
    "reserve_space",
    "sync_tree",
    "write_atomically",
    "write_state",
]

FINAL = ("succeeded", "failed", "cancelled")
"""States that nothing but a resume changes."""

STATES = ("created", "queued", "running", *FINAL)
"""What state.json may hold."""

REMOVED = ".removed-"
"""What the name of a directory begins with that is being removed."""

_RESERVE = ".reserve"
_UNFINISHED = ".new"
_RESERVED_TEXT = "reserved for the final state of the run, should the disk be full\n" * 150
_SYNCS_AT_ONCE = 16
_STALE_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class State:
    """Content of state.json.

    Attributes:
        state: One of `STATES`; `lost` is concluded by readers.
        attempt: 1 for the first start, one more for each resume.
        exit_code: The run's exit code, once ended.
        reason: One line on why it failed or was cancelled, or what it waits for.
        started: When the ranks were started (ISO 8601).
        ended: When all of them had ended (ISO 8601).
        supervisor: What the executor knows the run by; for a local one, its process.
    """

    state: str
    attempt: int = 1
    exit_code: int | None = None
    reason: str | None = None
    started: str | None = None
    ended: str | None = None
    supervisor: dict[str, Any] = field(default_factory=dict)


def now() -> str:
    """Return the present time as state.json and job.json hold it."""
    return datetime.now(UTC).isoformat()


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Replace a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Of several writers the last one counts. What a killed one leaves, `clear_unfinished` takes away. What root writes
    belongs to whom the folder belongs: a run can be another user's.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}{_UNFINISHED}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            folder = path.parent.stat()
            if os.geteuid() == 0 and folder.st_uid != 0:
                with contextlib.suppress(OSError):  # a file system that gives root no such rights
                    os.fchown(descriptor, folder.st_uid, folder.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def clear_unfinished(directory: Path) -> None:
    """Remove what killed writers have left; for the holder of the run directory's lock."""
    for path in directory.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def reserve_space(run_dir: Path) -> None:
    """Set aside the disk space that the final state will need if the run fills the disk."""
    write_atomically(run_dir / _RESERVE, _RESERVED_TEXT)


def first_files(state: State) -> dict[str, str]:
    """Return what is written here into a run directory that nobody sees yet: name and text of each file."""
    return {_RESERVE: _RESERVED_TEXT, "state.json": _text_of(state)}


def sync_tree(folder: Path) -> None:
    """Return when everything below a folder is on the disk, however a crash of the machine may follow.

    Several files at a time, so that the file system can put them into one write of its journal.

    Raises:
        OSError: Something could not be written.
    """
    from concurrent.futures import ThreadPoolExecutor

    paths = [path for place, _, names in os.walk(folder) for path in (place, *(f"{place}/{name}" for name in names))]
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        list(pool.map(_sync, paths))


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such thing for a folder, and nothing else to offer.
        if error.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def write_state(run_dir: Path, state: State) -> None:
    """Write state.json; on a full disk, into the space that was reserved."""
    text = _text_of(state)
    try:
        write_atomically(run_dir / "state.json", text)
    except OSError:
        with contextlib.suppress(OSError):
            (run_dir / _RESERVE).unlink()
        write_atomically(run_dir / "state.json", text)


def _text_of(state: State) -> str:
    return json.dumps(asdict(state), indent=2) + "\n"


def read_state(run_dir: Path) -> State:
    """Return the content of state.json.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what `write_state` writes.
    """
    content = read_json(run_dir / "state.json")
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
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not the state of a run: {error}") from None
    return state


def read_json(path: Path) -> Any:
    """Return the content of a file that is replaced now and then, which a network file system may deny for a moment.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON.
    """
    for _ in range(_STALE_TRIES):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return json.loads(path.read_text(encoding="utf-8"))
