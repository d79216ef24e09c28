"""What Slurm's own commands say and do."""

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

__all__ = [
    "WAITING",
    "JobStanding",
    "Nodes",
    "asked_together",
    "cancel_jobs",
    "job_standing",
    "minutes_of",
    "offered_nodes",
    "requeue_job",
    "restarts_of",
]

_PATIENCE_SECONDS = 30.0

WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
"""States of a job that has not been started, or is to be started again."""

_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
)
"""States after which nothing comes. Any other, such as one of a later version of Slurm, is that of a job in between."""

_SETTINGS = ("SACCT_", "SCANCEL_", "SINFO_", "SLURM_TIME_FORMAT", "SQUEUE_")
"""Variables with which users have Slurm's commands show them less, write differently, or ask before they act."""

_FACTORS = {"days": 24 * 60, "hours": 60, "minutes": 1, "seconds": 1 / 60}


class JobStanding(NamedTuple):
    """How a job stands.

    Attributes:
        state: Slurm's word, such as RUNNING.
        reason: Slurm's word for why it waits, such as Resources; "None" where there is none.
        exit_code: Of the batch script; none where it is not known.
        ended: When it had ended, as state.json holds it; none where that is not known.
    """

    state: str
    reason: str = "None"
    exit_code: int | None = None
    ended: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether processes of it may exist."""
        return self.state not in (*WAITING, *_ENDED)

    @property
    def is_suspended(self) -> bool:
        """Whether its processes are there and get no time."""
        return self.state in ("STOPPED", "SUSPENDED")

    @property
    def is_waiting(self) -> bool:
        """Whether it is still to be started."""
        return self.state in WAITING


_Answer: TypeAlias = JobStanding | RunError | None
"""How a job stands; none if Slurm does not know it; or why it cannot be asked."""

_known: ContextVar[Mapping[str, _Answer]] = ContextVar("known", default=MappingProxyType({}))
"""What `asked_together` has asked."""


class Nodes(NamedTuple):
    """Nodes of one kind in one partition.

    Attributes:
        partition: Its name.
        is_default: Whether jobs that name none go there.
        is_up: Whether it starts jobs.
        minutes: The longest time it allows; none without a limit.
        largest: The largest number of nodes it allows to a job; none without a limit.
        number: How many nodes there are.
        cpus: Of each.
        memory: Of each, in MiB.
        gpus: Of each.
        gpu_model: What Slurm calls their type; none if it has no name for it.
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
    """Return how a job stands; none if Slurm does not know it.

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
    """Ask Slurm once how jobs stand; within this context `job_standing` of them goes by that."""
    token = _known.set(_job_standings(job_ids))
    try:
        yield
    finally:
        _known.reset(token)


def _job_standings(job_ids: Sequence[str]) -> dict[str, _Answer]:
    """Return how jobs stand, by one call of squeue, and one of sacct for those that have ended or are forgotten."""
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
        # A database that is out of reach has not forgotten them.
        return {job_id: standing or error for job_id, standing in found.items()}
    if accounts is not None:
        found.update({job_id: _concluded(job_id, queue, accounts) for job_id in ended})
    return found


def _concluded(
    job_id: str, queue: Mapping[str, JobStanding], accounts: Mapping[str, JobStanding]
) -> JobStanding | None:
    """Return how a job stands that neither waits nor runs, by what the queue and the accounting hold of all jobs."""
    queued, record, number = queue.get(job_id), accounts.get(job_id), _number_of(job_id)
    if record is not None:
        # A record that has not caught up with the end of the job, or is that of an earlier start, says nothing of it.
        has_caught_up = record.state in _ENDED if queued is None else record.state == queued.state
        return record if has_caught_up else queued
    # A task of an array that was never started has no record of its own. As it does not wait any more either, it was
    # cancelled.
    was_cancelled = job_id != number and (number in queue or number in accounts)
    return queued or (JobStanding("CANCELLED") if was_cancelled else None)


def _accounts(job_ids: Sequence[str]) -> dict[str, JobStanding] | None:
    """Return what the accounting holds of jobs, which it forgets later than the queue does; none if there is none.

    Raises:
        RunError: There is one, and it cannot be asked.
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
        (job_id, JobStanding(words.partition(" ")[0], "None", _exit_code(code), _moment(end)))  # CANCELLED by 1000
        for job_id, words, code, end in rows
    )


def _number_of(job_id: str) -> str:
    """Return the number of a job, which is that of its array if it is of one."""
    return re.split("[_+]", job_id)[0]


def _rows(*command: str) -> list[tuple[str, str, str, str]]:
    """Return the rows of a table of four columns; between them may stand words such as the name of a cluster."""
    rows = (line.split("|") for line in _run(*command, "--noheader").splitlines())
    return [(row[0], row[1], row[2], row[3]) for row in rows if len(row) == 4]


def _by_job(rows: Iterable[tuple[str, JobStanding]]) -> dict[str, JobStanding]:
    """Return the last row of each job, and under the number of its array the last one of that."""
    return {name: standing for job_id, standing in rows for name in (_number_of(job_id), job_id)}


def _moment(text: str) -> str | None:
    """Return a time of this machine's zone as state.json holds it; none for Unknown and the like."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except ValueError:
        return None


def _exit_code(text: str) -> int | None:
    code, _, number = text.partition(":")
    if not code.isdigit():
        return None
    return int(code) or (128 + int(number) if number.isdigit() and int(number) else 0)


def cancel_jobs(job_ids: Sequence[str], *, force: bool) -> None:
    """Ask for the end of jobs; with `force`, their processes are killed at once.

    Raises:
        RunError: Slurm refuses it for one of them at least, or cannot be asked from here.
    """
    names = _names_of(job_ids)
    _run("scancel", *names)
    if force:
        # What was cancelled first cannot be taken for a job whose processes have failed.
        try:
            _run("scancel", "--signal=KILL", "--full", *names)
        except RunError:
            return  # one that waited, or has ended in between, has no processes


def _names_of(job_ids: Sequence[str]) -> list[str]:
    """Return jobs as scancel takes them, the tasks of an array in one word, which is one request to the controller."""
    arrays: dict[str, list[str]] = {}
    for job_id in job_ids:
        number, _, index = job_id.partition("_")
        arrays.setdefault(number, []).extend([index] if index else [])
    return [f"{number}_[{','.join(indices)}]" if indices else number for number, indices in arrays.items()]


def requeue_job(job_id: str) -> None:
    """Put a running job back into the queue.

    Raises:
        RunError: Slurm refuses, or cannot be asked from here.
    """
    _run("scontrol", "requeue", job_id)


def restarts_of(job_id: str) -> int:
    """Return how often Slurm has restarted a job that it knows.

    Raises:
        RunError: Slurm cannot be asked from here.
    """
    output = _run("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--Format=RestartCnt")
    return int(output.split()[0]) if output else 0


def offered_nodes() -> list[Nodes]:
    """Return the nodes of every partition, whatever they do at the moment.

    Raises:
        RunError: Slurm cannot be asked from here.
    """
    lines = _run("sinfo", "--all", "--noconvert", "--noheader", "--format=%P|%a|%l|%s|%D|%c|%m|%G").splitlines()
    return [_nodes(*line.split("|")) for line in lines if line.count("|") == 7]


def _nodes(partition: str, up: str, time: str, size: str, count: str, cpus: str, memory: str, gres: str) -> Nodes:
    # Several kinds of nodes in one line have a + behind the least.
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
    """Return a time as Slurm writes it (minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S) in minutes, rounded up.

    None stands for no limit.
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
        raise RunError(f"Slurm refuses: {lines[0]}")
    return result.stdout.strip()
