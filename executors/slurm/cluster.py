"""Queries and requests to Slurm through its commands."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from neva_recipes.config import RunError
from neva_recipes.run_directory.exit_codes import exit_code_of_signal

__all__ = [
    "WAITING",
    "JobStanding",
    "Nodes",
    "asked_together",
    "cancel_jobs",
    "job_standing",
    "longest_array",
    "minutes_of",
    "offered_nodes",
    "requeue_job",
    "restarts_of",
]

_PATIENCE_SECONDS = 30.0

_DEFAULT_ARRAY_SIZE = 1001
"""Slurm's default of MaxArraySize (man slurm.conf)."""

WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
"""States of a job that has not been started or will be started again."""

_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
)
"""Final states. Any other state, such as one of a later version of Slurm, is that of an active job."""

_SETTINGS = ("SACCT_", "SCANCEL_", "SINFO_", "SLURM_TIME_FORMAT", "SQUEUE_")
"""Variables with which users filter or format the output of Slurm's commands, or make them ask before they act."""

_NO_CONFIGURATION = ("resolve_ctls_from_dns_srv", "Could not establish a configuration source")
"""What Slurm's commands say where they have neither a slurm.conf nor a record in the DNS that names the controller."""

_FACTORS = {"days": 24 * 60, "hours": 60, "minutes": 1, "seconds": 1 / 60}


class JobStanding(NamedTuple):
    """The state of a job.

    Attributes:
        state: Slurm's name of the state, such as RUNNING.
        reason: Slurm's reason why the job waits, such as Resources; "None" if there is none.
        exit_code: Exit code of the batch script; `None` if unknown.
        ended: When the job ended, in the format of state.json; `None` if unknown.
    """

    state: str
    reason: str = "None"
    exit_code: int | None = None
    ended: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether the job may have processes."""
        return self.state not in (*WAITING, *_ENDED)

    @property
    def is_suspended(self) -> bool:
        """Whether its processes exist but are suspended."""
        return self.state in ("STOPPED", "SUSPENDED")

    @property
    def is_waiting(self) -> bool:
        """Whether it is still to be started."""
        return self.state in WAITING


_Answer: TypeAlias = JobStanding | RunError | None
"""The state of a job; `None` if Slurm does not know the job; or the error of the query."""

_known: ContextVar[Mapping[str, _Answer]] = ContextVar("known", default=MappingProxyType({}))
"""The answers that `asked_together` has collected."""


class Nodes(NamedTuple):
    """Nodes of one kind in one partition.

    Attributes:
        partition: Name of the partition.
        is_default: Whether it is the cluster's default partition.
        is_up: Whether it starts jobs.
        minutes: Its time limit; `None` for no limit.
        largest: Its limit on the nodes of a job; `None` for no limit.
        number: Number of nodes.
        cpus: Cores of each node.
        memory: Memory of each node in MiB.
        gpus: GPUs of each node.
        gpu_model: Slurm's name of the GPU type; `None` if it has none.
    """

    partition: str
    is_default: bool
    is_up: bool
    minutes: int | None
    largest: int | None
    number: int
    cpus: int
    memory: int
    gpus: int
    gpu_model: str | None


def job_standing(job_id: str) -> JobStanding | None:
    """Return the state of a job; `None` if Slurm does not know the job.

    Raises:
        RunError: Slurm cannot be asked from here.
    """
    known = _known.get()
    answer = known[job_id] if job_id in known else _job_standings([job_id])[job_id]
    if isinstance(answer, RunError):
        raise answer
    return answer


@contextlib.contextmanager
def asked_together(job_ids: Sequence[str]) -> Iterator[None]:
    """Query the states of several jobs at once; within this context `job_standing` returns these answers."""
    token = _known.set(_job_standings(job_ids))
    try:
        yield
    finally:
        _known.reset(token)


def _job_standings(job_ids: Sequence[str]) -> dict[str, _Answer]:
    """Return the states of jobs from one call of squeue, and one of sacct for jobs that have ended or are unknown."""
    numbers = ",".join(dict.fromkeys(map(_number_of, job_ids)))
    try:
        rows = _rows("squeue", "--states=all", "--array", f"--jobs={numbers}", "--format=%i|%T|%r|%e")
    except RunError as error:
        if "Invalid job id" not in str(error):
            return dict.fromkeys(job_ids, error)
        rows = []
    queue = _by_job((job_id, JobStanding(state, reason, ended=_moment(end))) for job_id, state, reason, end in rows)
    ended = [job_id for job_id in job_ids if job_id not in queue or queue[job_id].state in _ENDED]
    found: dict[str, _Answer] = {job_id: queue.get(job_id) for job_id in job_ids}
    try:
        accounts = _accounts(ended) if ended else None
    except RunError as error:
        # That the database cannot be reached does not mean that it does not know the jobs.
        return {job_id: standing or error for job_id, standing in found.items()}
    if accounts is not None:
        found.update({job_id: _concluded(job_id, queue, accounts) for job_id in ended})
    return found


def _concluded(
    job_id: str, queue: Mapping[str, JobStanding], accounts: Mapping[str, JobStanding]
) -> JobStanding | None:
    """Return the state of a job that neither waits nor runs, from the entries of all jobs in queue and accounting."""
    queued, record, number = queue.get(job_id), accounts.get(job_id), _number_of(job_id)
    if record is not None:
        # The record may be older than the end of the job, or belong to an earlier start; then it is ignored.
        has_caught_up = record.state in _ENDED if queued is None else record.state == queued.state
        return record if has_caught_up else queued
    # An array task that was never started has no record of its own. Since it no longer waits, it was cancelled.
    was_cancelled = job_id != number and (number in queue or number in accounts)
    return queued or (JobStanding("CANCELLED") if was_cancelled else None)


def _accounts(job_ids: Sequence[str]) -> dict[str, JobStanding] | None:
    """Return the accounting's entries of jobs, which it keeps longer than the queue; `None` without accounting.

    Raises:
        RunError: There is an accounting database, but it cannot be queried.
    """
    if shutil.which("sacct") is None:
        return None
    numbers = ",".join(dict.fromkeys(map(_number_of, job_ids)))
    columns = "--format=JobID,State,ExitCode,End"
    try:
        rows = _rows("sacct", "--allocations", "--parsable2", f"--jobs={numbers}", columns)
    except RunError as error:
        if "accounting storage is disabled" in str(error):
            return None
        raise
    return _by_job(
        (job_id, JobStanding(words.partition(" ")[0], "None", _exit_code(code), _moment(end)))  # e.g. CANCELLED by 1000
        for job_id, words, code, end in rows
    )


def _number_of(job_id: str) -> str:
    """Return the base job id, which for an array task is that of the array."""
    return re.split("[_+]", job_id)[0]


def _rows(*command: str) -> list[tuple[str, str, str, str]]:
    """Return the rows of a table with four columns; skips other lines, such as the name of a cluster."""
    rows = (line.split("|") for line in _run(*command, "--noheader").splitlines())
    return [(row[0], row[1], row[2], row[3]) for row in rows if len(row) == 4]


def _by_job(rows: Iterable[tuple[str, JobStanding]]) -> dict[str, JobStanding]:
    """Return the last row of each job id and, for array tasks, the last row of each array."""
    return {name: standing for job_id, standing in rows for name in (_number_of(job_id), job_id)}


def _moment(text: str) -> str | None:
    """Return a local time in the format of state.json; `None` for Unknown and similar texts."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except ValueError:
        return None


def _exit_code(text: str) -> int | None:
    code, _, number = text.partition(":")
    if not code.isdigit():
        return None
    return int(code) or (exit_code_of_signal(int(number)) if number.isdigit() and int(number) else 0)


def cancel_jobs(job_ids: Sequence[str], *, force: bool) -> None:
    """Ask for the end of jobs; with `force`, their processes are killed at once.

    Raises:
        RunError: Slurm refuses it for at least one of them, or cannot be asked from here.
    """
    names = _names_of(job_ids)
    _run("scancel", *names)
    if force:
        # Cancelled first, so that Slurm does not record the killed job as failed.
        try:
            _run("scancel", "--signal=KILL", "--full", *names)
        except RunError:
            return  # a job that waited or has just ended has no processes


def _names_of(job_ids: Sequence[str]) -> list[str]:
    """Return job ids for scancel; all tasks of an array become one argument, which is one request to the controller."""
    arrays: dict[str, list[str]] = {}
    for job_id in job_ids:
        number, _, index = job_id.partition("_")
        arrays.setdefault(number, []).extend([index] if index else [])
    return [f"{number}_[{','.join(indices)}]" if indices else number for number, indices in arrays.items()]


def requeue_job(job_id: str) -> None:
    """Requeue a running job.

    Raises:
        RunError: Slurm refuses, or cannot be asked from here.
    """
    _run("scontrol", "requeue", job_id)


def restarts_of(job_id: str) -> int:
    """Return how often Slurm has restarted a job; 0 for an unknown job.

    Raises:
        RunError: Slurm cannot be asked from here.
    """
    output = _run("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--Format=RestartCnt")
    return int(output.split()[0]) if output else 0


def offered_nodes() -> list[Nodes]:
    """Return the nodes of every partition, whatever their present state.

    Raises:
        RunError: Slurm cannot be asked from here.
    """
    lines = _run("sinfo", "--all", "--noconvert", "--noheader", "--format=%P|%a|%l|%s|%D|%c|%m|%G").splitlines()
    return [_nodes(*line.split("|")) for line in lines if line.count("|") == 7]


def longest_array() -> int:
    """Return MaxArraySize, the largest number of jobs in an array; the largest index is one less.

    Raises:
        RunError: Slurm cannot be asked from here.
    """
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else _DEFAULT_ARRAY_SIZE


def _nodes(partition: str, up: str, time: str, size: str, count: str, cpus: str, memory: str, gres: str) -> Nodes:
    # For a line with several kinds of nodes sinfo prints the minimum, followed by +.
    found = re.findall(r"gpu:(?:([^:,()]+):)?(\d+)", gres)
    largest = size.rpartition("-")[2]
    return Nodes(
        partition=partition.removesuffix("*"),
        is_default=partition.endswith("*"),
        is_up=up == "up",
        minutes=minutes_of(time),
        largest=int(largest) if largest.isdigit() else None,
        number=int(count),
        cpus=int(cpus.rstrip("+")),
        memory=int(memory.rstrip("+")),
        gpus=sum(int(number) for _, number in found),
        gpu_model=found[0][0] or None if found else None,
    )


def minutes_of(time: str) -> int | None:
    """Return the minutes, rounded up, of a time in Slurm's format (minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S).

    `None` for any other text, which means no limit.
    """
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", time):
        return None
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        units = ["hours", "minutes", "seconds"]
    else:
        units = ["hours", "minutes", "seconds"] if len(parts) == 3 else ["minutes", "seconds"]
    total = sum(number * _FACTORS[unit] for number, unit in zip(parts, units, strict=False))
    return -int(-(total + int(days or 0) * _FACTORS["days"]) // 1)


def _run(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise RunError(f"no Slurm here: {command[0]} is not on PATH") from None
    except subprocess.TimeoutExpired:
        raise RunError(f"Slurm does not answer: {command[0]} has waited {_PATIENCE_SECONDS:.0f} s") from None
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or [f"exit code {result.returncode}"]
        raise RunError(f"{_why_refused(result.stderr)}: {lines[0]}")
    return result.stdout.strip()


def _why_refused(told: str) -> str:
    """Return what the errors of a Slurm command mean: that it found no controller, or that Slurm refuses."""
    if any(mark in told for mark in _NO_CONFIGURATION):
        return "no Slurm controller was found from here, as a login node of the cluster finds it"
    return "Slurm refuses"
