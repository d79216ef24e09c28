"""Records that the processes of a Slurm job keep in its run directory: its state, the ends of ranks, requeues."""

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from executors.process.linux import describe_exit
from executors.process.verdict import cause_of, reported_failure
from neva_recipes.run_directory.exit_codes import CAUSES, EXIT_STOPPED, STOP_SIGNAL, exit_code_of, exit_code_of_signal
from neva_recipes.run_directory.layout import CHECKPOINTS, FAILURE_FILE, JOB_FILE, joined_log
from neva_recipes.run_directory.names import list_checkpoints
from neva_recipes.run_directory.state import (
    State,
    now,
    read_json,
    read_state,
    seconds_so_far,
    write_atomically,
    write_state,
)

__all__ = [
    "FOLDER",
    "LOOK_SECONDS",
    "ask_to_stop",
    "await_submission",
    "begin",
    "failure_of",
    "has_failed",
    "has_stopped",
    "is_asked_to_stop",
    "is_superseded",
    "last_lines",
    "note_end",
    "note_requeue",
    "own_job_id",
    "restart_number",
]

FOLDER = "slurm"
"""Folder of the run directory for the files of submitit and of the tasks."""

_SLURM = re.compile(r'srun: |slurmstepd|Try "srun --help"')
"""Beginning of lines that Slurm itself prints."""

_ALL_ENDS = re.compile(
    r"srun: (error: \S+: tasks? [\d,-]+: (Exited with exit code|Terminated)|launch/slurm: _step_signal|Terminating"
    r'|Job step aborted|Force Terminated)|slurmstepd\S*: error: \*\*\* (JOB|STEP)|Try "srun --help"'
)
"""Lines that Slurm prints at the end of tasks, whatever the cause."""

LOOK_SECONDS = 5.0
"""Seconds between two checks by a task whether the job was started again without it or is asked to stop."""

_LITTLE_SPACE = 64 * 1024
_PATIENCE_SECONDS = 60.0
_REQUEUES = "requeues.json"
_STOP = "stop"


class _End(NamedTuple):
    """The end of a rank: exit code (a negative signal number if killed), time, and a special message if any."""

    rank: int
    code: int
    time: float
    message: str | None


def own_job_id() -> str:
    """Return the job id of this process; ARRAY_INDEX for an array task."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def restart_number() -> int:
    """Return how often Slurm has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def await_submission(run_dir: Path, job_id: str) -> State:
    """Return the state of the run once the submitting process has written the job id into it.

    Raises:
        TimeoutError: The job id was not written in time.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (state := read_state(run_dir)).supervisor.get("slurm_job_id") != job_id:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{run_dir}: state.json does not name job {job_id}")
        time.sleep(0.05)
    return state


def begin(run_dir: Path) -> None:
    """Write that the ranks run; if ranks of an earlier start may be left, wait until they have seen it.

    A node that Slurm considers down may be alive: its ranks end by themselves when they see that they were replaced.
    """
    state = read_state(run_dir)
    # The failure of an earlier start does not apply to this one.
    (run_dir / FAILURE_FILE).unlink(missing_ok=True)
    write_state(
        run_dir,
        dataclasses.replace(
            state,
            state="running",
            reason=None,
            started=now(),
            earlier_seconds=seconds_so_far(run_dir, state),
            supervisor={
                **state.supervisor,
                "nodes": os.environ["SLURM_JOB_NODELIST"],
                "restart": restart_number(),
            },
        ),
    )
    if restart_number() and len(_ends(run_dir, restart_number() - 1)) < _record(run_dir)["world_size"]:
        time.sleep(2 * LOOK_SECONDS)


def is_superseded(run_dir: Path, job_id: str) -> bool:
    """Return whether the run has been started again after this start of the job."""
    try:
        supervisor = read_state(run_dir).supervisor
    except (OSError, ValueError):
        return False
    return supervisor.get("slurm_job_id") != job_id or supervisor.get("restart", 0) > restart_number()


def ask_to_stop(run_dir: Path, job_id: str) -> None:
    """Write a request that a job save its work and end for good; it also applies to later starts of the job.

    A file reaches the tasks on all nodes, even those that do not handle signals yet, and the end of the batch script.

    Raises:
        OSError: It cannot be written.
    """
    write_atomically(run_dir / FOLDER / _STOP, f"{job_id}\n")


def is_asked_to_stop(run_dir: Path, job_id: str) -> bool:
    """Return whether `ask_to_stop` was called for a job."""
    try:
        return (run_dir / FOLDER / _STOP).read_text(encoding="utf-8").strip() == job_id
    except OSError:
        return False


def note_end(run_dir: Path, rank: int, code: int, message: str | None = None) -> None:
    """Write down how a rank of this start of the job has ended."""
    text = json.dumps({"rank": rank, "code": code, "time": time.time(), "message": message})
    try:
        write_atomically(run_dir / FOLDER / f"end-{restart_number()}-{rank}.json", text)
    except OSError:
        return  # full disk; the exit code of srun tells of the end too


def _ends(run_dir: Path, restart: int | None = None) -> list[_End]:
    """Return the ends of the ranks of a start of the job, by default of this one, in order of time."""
    paths = (run_dir / FOLDER).glob(f"end-{restart_number() if restart is None else restart}-*.json")
    return sorted((_End(**json.loads(path.read_text())) for path in paths), key=lambda end: end.time)


def _record(run_dir: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_json(run_dir / JOB_FILE)
    return record


def has_failed(run_dir: Path) -> bool:
    """Return whether a rank of this start of the job has recorded a failure."""
    return any(end.code not in (0, EXIT_STOPPED, -signal.SIGTERM) for end in _ends(run_dir))


def has_stopped(run_dir: Path, code: int) -> bool:
    """Return whether the ranks have stopped on request and none has failed before.

    Programs that cannot save on request end by the SIGTERM of a preemption, which all processes get. So do tasks that
    have no signal handler yet.

    Args:
        run_dir: The run directory.
        code: Exit code of the batch script.
    """
    ends = _ends(run_dir)
    if not ends and not (run_dir / FAILURE_FILE).exists():
        return code in (exit_code_of_signal(STOP_SIGNAL), exit_code_of_signal(signal.SIGTERM))
    failed = [end for end in ends if end.code]
    terminated = [end for end in ends if end.code == -signal.SIGTERM]
    size = _record(run_dir)["world_size"]
    return (bool(failed) and failed[0].code == EXIT_STOPPED) or len(terminated) == size


def failure_of(run_dir: Path, code: int) -> tuple[int, str]:
    """Return exit code and reason of a job that has failed.

    Args:
        run_dir: The run directory.
        code: Exit code of the batch script.
    """
    # When a rank has failed, srun sends SIGTERM to the other ranks; these ends are not failures of their own.
    ends = [end for end in _ends(run_dir) if end.code not in (0, EXIT_STOPPED, -signal.SIGTERM)]
    cause = cause_of(ends)
    report = reported_failure(run_dir, cause.rank if cause is not None and -cause.code in CAUSES else None)
    if report is not None:
        own = next((end for end in ends if end.rank == report.rank), None)
        return report.exit_code or (exit_code_of(own.code) if own else code), report.line
    if cause is not None:
        return exit_code_of(cause.code), cause.message or f"rank {cause.rank} {describe_exit(cause.code)}"
    if shutil.disk_usage(run_dir).free < _LITTLE_SPACE:
        # srun returns the largest exit code of all ranks, which may be that of a rank killed after the failure.
        return (code if code < 128 else 1), "the disk is full, and took no word of why the ranks have ended"
    lines = last_lines(run_dir)
    for line in lines:
        if line.startswith("srun: error: ") and line.endswith((": Killed", ": Out Of Memory")):
            return exit_code_of_signal(signal.SIGKILL), line.removeprefix("srun: error: ")
    return code, f"the batch script exited with code {code}" + (f": {_telling_line(lines)}" if lines else "")


def _telling_line(lines: list[str]) -> str:
    """Return the line that says why srun has ended: the first specific line of Slurm, else the line before these."""
    first = len(lines)
    while first > 0 and _SLURM.match(lines[first - 1]):
        first -= 1
    telling = [line for line in lines[first:] if not _ALL_ENDS.match(line)]
    return next(iter([*telling, *lines[:first][-1:], *lines[first:]]))


def last_lines(run_dir: Path) -> list[str]:
    """Return the last non-empty lines of the log."""
    try:
        with joined_log(run_dir).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20000))
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def note_requeue(run_dir: Path) -> tuple[int, str | None]:
    """Record that the job stops to go on later.

    Returns:
        The number of these stops, and why the job must not go on if it has saved no new checkpoint since the last one.
    """
    path = run_dir / FOLDER / _REQUEUES
    try:
        earlier: list[dict[str, Any]] = read_json(path)
    except FileNotFoundError:
        earlier = []
    found = list_checkpoints(run_dir / CHECKPOINTS)
    newest = found[-1].name if found else None
    entry = {"time": now(), "checkpoint": newest}
    write_atomically(path, json.dumps([*earlier, entry], indent=2) + "\n")
    if earlier and earlier[-1]["checkpoint"] == newest:
        where = f"its newest checkpoint is still {newest}" if newest else "there is no checkpoint"
        return len(earlier) + 1, f"no progress between two requeues: {where}; give it more time than that takes"
    return len(earlier) + 1, None
