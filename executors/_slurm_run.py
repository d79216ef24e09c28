"""What the processes of a Slurm job write into its run directory: how it stands, how ranks ended, when it goes on."""

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from executors._failure import CAUSES, read_failure
from executors._process import describe_exit
from executors._rank import EXIT_STOPPED
from executors._state import State, now, read_json, read_state, write_atomically, write_state

__all__ = [
    "FOLDER",
    "LOOK_SECONDS",
    "await_submission",
    "begin",
    "failure_of",
    "has_failed",
    "has_stopped",
    "is_superseded",
    "note_end",
    "note_requeue",
    "own_job_id",
    "restart_number",
]

FOLDER = "slurm"
"""Folder of the run directory with what submitit and the tasks write."""

_SLURM = re.compile(r'srun: |slurmstepd|Try "srun --help"')
"""How lines of Slurm's own begin."""

_ALL_ENDS = re.compile(
    r"srun: (error: \S+: tasks? [\d,-]+: (Exited with exit code|Terminated)|launch/slurm: _step_signal|Terminating"
    r'|Job step aborted|Force Terminated)|slurmstepd\S*: error: \*\*\* (JOB|STEP)|Try "srun --help"'
)
"""What it says when tasks have ended, whyever."""

LOOK_SECONDS = 5.0
"""How often a task looks whether the job has been started again without it."""

_LITTLE_SPACE = 64 * 1024
_PATIENCE_SECONDS = 60.0
_REQUEUES = "requeues.json"


class _End(NamedTuple):
    """How a rank has ended: its exit code (a negative signal if killed), when, and in which words if not its own."""

    rank: int
    code: int
    time: float
    message: str | None


def own_job_id() -> str:
    """Return the number of the job that this process is of; of an array, ARRAY_INDEX."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def restart_number() -> int:
    """Return how often Slurm has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def await_submission(run_dir: Path, job_id: str) -> State:
    """Return the state of the run once whoever has submitted it has written down the number of the job.

    Raises:
        TimeoutError: That has not happened.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (state := read_state(run_dir)).supervisor.get("slurm_job_id") != job_id:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{run_dir}: state.json does not name job {job_id}")
        time.sleep(0.05)
    return state


def begin(run_dir: Path) -> None:
    """Write that the ranks run, and wait until those of an earlier start know it, if some may be left.

    A node that Slurm has given up need not be dead: what runs there ends itself when it sees that it was replaced.
    """
    state = read_state(run_dir)
    # Why an earlier start has failed is not why this one does.
    (run_dir / "failure.json").unlink(missing_ok=True)
    write_state(
        run_dir,
        dataclasses.replace(
            state,
            state="running",
            reason=None,
            started=now(),
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
    """Return whether the run has been started again since this start of the job began."""
    try:
        supervisor = read_state(run_dir).supervisor
    except (OSError, ValueError):
        return False
    return supervisor.get("slurm_job_id") != job_id or supervisor.get("restart", 0) > restart_number()


def note_end(run_dir: Path, rank: int, code: int, message: str | None = None) -> None:
    """Write down how a rank of this start of the job has ended."""
    text = json.dumps({"rank": rank, "code": code, "time": time.time(), "message": message})
    try:
        write_atomically(run_dir / FOLDER / f"end-{restart_number()}-{rank}.json", text)
    except OSError:
        return  # a full disk: the exit code of srun says it too


def _ends(run_dir: Path, restart: int | None = None) -> list[_End]:
    """Return how ranks of a start of the job, by default this one, have ended, the first one first."""
    paths = (run_dir / FOLDER).glob(f"end-{restart_number() if restart is None else restart}-*.json")
    return sorted((_End(**json.loads(path.read_text())) for path in paths), key=lambda end: end.time)


def _record(run_dir: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_json(run_dir / "job.json")
    return record


def has_failed(run_dir: Path) -> bool:
    """Return whether a rank of this start of the job has left word that it failed."""
    return any(end.code not in (0, EXIT_STOPPED, -signal.SIGTERM) for end in _ends(run_dir))


def has_stopped(run_dir: Path, code: int) -> bool:
    """Return whether the ranks have stopped as they were asked to, and none has failed before.

    Programs that save nothing on request end by the SIGTERM of a preemption, which all processes get. So do tasks
    that have not come far enough to listen.

    Args:
        run_dir: The run directory.
        code: Exit code of the batch script.
    """
    ends = _ends(run_dir)
    if not ends and not (run_dir / "failure.json").exists():
        return code in (128 + signal.SIGUSR2, 128 + signal.SIGTERM)
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
    # Of one rank that is gone the others hear by SIGTERM.
    ends = [end for end in _ends(run_dir) if end.code not in (0, EXIT_STOPPED, -signal.SIGTERM)]
    killed = next((end for end in ends if -end.code in CAUSES), None)
    report = read_failure(run_dir)
    # Of a rank that was killed, the others can only report that they have lost it.
    if report is not None and (killed is None or killed.rank == report[0]):
        number, kind, message = report
        if kind == "user":
            return 2, message
        own = next((end for end in ends if end.rank == number), None)
        return (_shell_code(own.code) if own else code), f"rank {number}: {message}"
    cause = killed or next(iter(ends), None)
    if cause is not None:
        return _shell_code(cause.code), cause.message or f"rank {cause.rank} {describe_exit(cause.code)}"
    if shutil.disk_usage(run_dir).free < _LITTLE_SPACE:
        # Of several exit codes srun tells the largest, which may be that of a rank that was ended with the others.
        return (code if code < 128 else 1), "the disk is full, and took no word of why the ranks have ended"
    lines = _last_lines(run_dir)
    for line in lines:
        if line.startswith("srun: error: ") and line.endswith((": Killed", ": Out Of Memory")):
            return 128 + signal.SIGKILL, line.removeprefix("srun: error: ")
    return code, f"the batch script exited with code {code}" + (f": {_telling_line(lines)}" if lines else "")


def _telling_line(lines: list[str]) -> str:
    """Return the line that says why srun has ended, among and before those that it has for whatever end."""
    first = len(lines)
    while first > 0 and _SLURM.match(lines[first - 1]):
        first -= 1
    telling = [line for line in lines[first:] if not _ALL_ENDS.match(line)]
    return next(iter([*telling, *lines[:first][-1:], *lines[first:]]))


def _shell_code(code: int) -> int:
    return code if code > 0 else 128 - code


def _last_lines(run_dir: Path) -> list[str]:
    """Return the last lines of the log that are not empty, those of this start of the job among them."""
    try:
        with (run_dir / "logs" / "joined.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20000))
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def note_requeue(run_dir: Path) -> tuple[int, str | None]:
    """Write down that the job stops to go on later.

    Returns:
        How often it has done so, and why it must not go on if it has saved nothing new since the last time.
    """
    path = run_dir / FOLDER / _REQUEUES
    try:
        earlier: list[dict[str, Any]] = read_json(path)
    except FileNotFoundError:
        earlier = []
    newest = max((entry.name for entry in run_dir.glob("checkpoints/step-*") if entry.is_dir()), default=None)
    entry = {"time": now(), "checkpoint": newest}
    write_atomically(path, json.dumps([*earlier, entry], indent=2) + "\n")
    if earlier and earlier[-1]["checkpoint"] == newest:
        where = f"its newest checkpoint is still {newest}" if newest else "there is no checkpoint"
        return len(earlier) + 1, f"no progress between two requeues: {where}; give it more time than that takes"
    return len(earlier) + 1, None
