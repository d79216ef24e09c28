"""state.json: the one record of how a run stands, whole at every moment. Standard library only."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["FINAL", "State", "now", "read_state", "reserve_space", "write_atomically", "write_state"]

FINAL = ("succeeded", "failed", "cancelled")
"""States that nothing but a resume changes."""

_RESERVE = ".reserve"


@dataclass(frozen=True, kw_only=True)
class State:
    """Content of state.json.

    Attributes:
        state: created, running, succeeded, failed or cancelled; `lost` is concluded by readers.
        attempt: 1 for the first start, one more for each resume.
        exit_code: The run's exit code, once ended.
        reason: One line on why it failed or was cancelled.
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

    There must be one writer at a time: the holder of the run directory's lock.
    """
    temporary = path.with_name(f".{path.name}.new")
    # What a killed writer left must not lend its mode to the new file.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def reserve_space(run_dir: Path) -> None:
    """Set aside the disk space that the final state will need if the run fills the disk."""
    write_atomically(run_dir / _RESERVE, "reserved for the final state of the run, should the disk be full\n" * 150)


def write_state(run_dir: Path, state: State) -> None:
    """Write state.json; on a full disk, into the space that was reserved."""
    text = json.dumps(asdict(state), indent=2) + "\n"
    try:
        write_atomically(run_dir / "state.json", text)
    except OSError:
        with contextlib.suppress(OSError):
            (run_dir / _RESERVE).unlink()
        write_atomically(run_dir / "state.json", text)


def read_state(run_dir: Path) -> State:
    """Return the content of state.json.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what `write_state` writes.
    """
    try:
        return State(**json.loads((run_dir / "state.json").read_text(encoding="utf-8")))
    except TypeError as error:
        raise ValueError(f"not the state of a run: {error}") from None
