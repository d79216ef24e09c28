"""Runs a job on a Slurm cluster: one task per rank, started by srun."""

import contextlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from executors.base import Job, RefusedError, SupervisorEntry
from executors.script import run_directory_script
from executors.slurm.capacity import require_capacity
from executors.slurm.cluster import (
    asked_together,
    cancel_jobs,
    job_standing,
    longest_array,
    minutes_of,
    offered_nodes,
)
from executors.slurm.run import ask_to_stop
from executors.slurm.settings import SlurmSettings
from neva_recipes.config import Matches, RunError, config_dataclass, how_many
from neva_recipes.plan import Finding, Layout, Plan
from neva_recipes.plan.cost.gpus import gpus_named
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.state import State, read_state, write_state

__all__ = ["SlurmExecutor"]

_WORDS = {
    "TIMEOUT": "its time limit was reached before it could stop",
    "DEADLINE": "its deadline was reached",
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "a node did not boot",
    "OUT_OF_MEMORY": "it was killed for want of memory",
    "PREEMPTED": "it was preempted",
    "REVOKED": "it was taken back by another cluster",
}


@config_dataclass
class SlurmExecutor(SlurmSettings):
    """One task per rank of a Slurm job, submitted through submitit."""

    kind: ClassVar[str] = "slurm"
    answer_seconds: ClassVar[float] = 2.0
    outlives_command: ClassVar[bool] = True
    takes_stop: ClassVar[bool] = True
    supervisor_entries: ClassVar[Mapping[str, Matches]] = MappingProxyType(
        {"slurm_job_id": Matches(r"\d+([_+]\d+)?", "the number of a Slurm job")}
    )

    def check(self, layout: Layout) -> None:
        """Accept every layout: `require_ready` asks the cluster when a job is started."""

    def require_ready(self, job: Job) -> None:
        """Raise `RunError` if there is no Slurm here, or no partition that could ever run the job."""
        for program in ("sbatch", "srun", "sinfo", "squeue"):
            if shutil.which(program) is None:
                raise RunError(f"no Slurm here: {program} is not on PATH")
        if any(mark in str(job.run_dir) for mark in ("%j", "%t", "%A", "%a")):
            raise RunError(f"runs_dir: {str(job.run_dir)!r} has a % before a letter with a meaning to Slurm: rename it")
        if self.container_image is not None and any(mark in f"{job.run_dir}{job.cwd}" for mark in ",:"):
            raise RunError(f"runs_dir: {str(job.run_dir)!r} has a comma or colon and cannot be mounted in a container")
        require_capacity(self, job.layout, offered_nodes())
        # Slurm accepts a dependency on a job that never existed, and then waits forever.
        for number in re.findall(r"(?:^|[:,?])(\d+)", self.dependency or ""):
            if job_standing(number) is None:
                raise RunError(
                    f"executor.dependency={self.dependency}: Slurm knows of no job {number}; "
                    "executor.dependency=none waits for nothing"
                )

    def gpu_type(self) -> str | None:
        """Return `gpu_model` if it names a type that is in the table."""
        return self.gpu_model if self.gpu_model and gpus_named(self.gpu_model) else None

    def lacks(self, package: str) -> bool:
        """Return whether a package is not installed here; `False` if the nodes use another Python than the command."""
        return self.python is None and self.container_image is None and importlib.util.find_spec(package) is None

    def advise(self, plan: Plan) -> Iterator[Finding]:
        """Yield what is unwise in time limit, GPUs and cores, and names on the hub that nobody has fetched."""
        from executors.slurm.advice import advice_on

        yield from super().advise(plan)
        yield from advice_on(self, plan)

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env` with defaults for unbuffered output and, if `cpus_per_task` is set, for threads."""
        defaults = {"PYTHONUNBUFFERED": "1"}  # output goes to a pipe and should be shown at once
        if self.cpus_per_task is not None:
            defaults["OMP_NUM_THREADS"] = str(self.cpus_per_task)
        return defaults | self.env

    def script(self, job: Job) -> str:
        """Return a shell script that writes the run directory if it is missing and submits the job."""
        from executors.slurm.submission import batch_script

        launcher = (sys.executable, "-P", "-m", "executors")
        return run_directory_script(job, launcher, {"sbatch.sh": batch_script(job, self)})

    def in_short(self, job: Job) -> tuple[str, str]:
        """Return the batch script."""
        from executors.slurm.submission import batch_script

        return "Batch script of Slurm", batch_script(job, self)

    def asks_for(self, layout: Layout) -> str:
        """Return the number of nodes, what is asked of each, and the time limit."""
        ranks, each = layout.processes_per_node, []
        if self.gpu_request != "none":
            each.append(how_many(ranks, f"{self.gpu_model} GPU" if self.gpu_model else "GPU"))
        each.append("cores by default" if self.cpus_per_task is None else how_many(ranks * self.cpus_per_task, "core"))
        memory = {None: "memory by default", "0": "all of its memory"}
        each.append(memory.get(self.memory, f"{self.memory} of memory"))
        nodes = f"{how_many(layout.num_nodes, 'node')}{', each' if layout.num_nodes > 1 else ''}"
        limit = f"time limit {_limit_in_words(self.time)}" if self.time else "time limit by default"
        return f"{nodes} with {', '.join(each)}; {limit}"

    def start(self, job: Job, *, lock: int, lifeline: int | None) -> None:
        """Submit the job; it goes on when the command in the foreground has ended.

        Raises:
            RefusedError: Slurm refuses it.
            RunError: It cannot be submitted.
        """
        from executors.slurm.submission import submit, write_code

        def record(job_id: str) -> None:
            state = read_state(job.run_dir)
            supervisor = {"slurm_job_id": job_id}
            write_state(job.run_dir, replace(state, state="queued", supervisor=supervisor))

        try:
            if self.code_snapshot:
                write_code(job.run_dir)
            submit(job, self, record)
        except OSError as error:
            raise RunError(f"run {run_title(job.run_dir)} cannot be submitted: {error}") from None

    @property
    def starts_together(self) -> bool:
        """Whether jobs can be submitted as one array; not in containers, where each job has its own mounts."""
        return self.container_image is None

    def start_together(self, jobs: Sequence[Job], folder: Path) -> None:
        """Submit the jobs as one array per layout, or as several arrays if one would be too long.

        Raises:
            RefusedError: Slurm refuses them or takes no arrays; arrays submitted before are cancelled.
            RunError: They cannot be submitted.
        """
        from executors.slurm.submission import CODE_FILE, submit_array, write_code

        def record(job: Job, job_id: str) -> None:
            state = read_state(job.run_dir)
            write_state(job.run_dir, replace(state, state="queued", supervisor={"slurm_job_id": job_id}))

        try:
            if self.code_snapshot:
                write_code(folder)
                for job in jobs:
                    (job.run_dir / CODE_FILE).unlink(missing_ok=True)
                    (job.run_dir / CODE_FILE).symlink_to(folder / CODE_FILE)
            shapes: dict[tuple[int, int], list[Job]] = {}
            for job in jobs:
                shapes.setdefault((job.layout.num_nodes, job.layout.processes_per_node), []).append(job)
            longest = longest_array()
            if longest == 0:
                raise RefusedError(
                    "this cluster takes no arrays (MaxArraySize=0): --parallel N submits the points singly"
                )
            with contextlib.ExitStack() as taken:
                for alike in shapes.values():
                    for first in range(0, len(alike), longest):
                        number = submit_array(alike[first : first + longest], self, folder, record)
                        taken.callback(_cancel_quietly, number)
                taken.pop_all()
        except OSError as error:
            raise RunError(f"{folder}: cannot be submitted: {error}") from None

    def after(self, supervisors: Sequence[SupervisorEntry]) -> "SlurmExecutor":
        """Return an executor whose job Slurm starts once other jobs have succeeded, and cancels if one has not.

        Raises:
            RunError: `dependency` cannot be combined with this condition.
        """
        ids = "".join(f":{supervisor['slurm_job_id']}" for supervisor in supervisors)
        if not ids:
            return self
        own = self.dependency
        if own is not None and "?" in own:
            raise RunError(
                f"executor.dependency={own}: waits for one of several, and the stages before must all succeed, which "
                "Slurm cannot both be told: leave it out, or join by commas what must all be met"
            )
        if own is not None and own[0].isdigit():  # Slurm cannot combine a list of bare job ids with other conditions
            own = f"afterany:{own.replace(',', ':')}"
        dependency = ",".join(filter(None, [own, f"afterok{ids}"]))
        return replace(self, dependency=dependency, sbatch={**self.sbatch, "kill-on-invalid-dep": "yes"})

    def of_later_stage(self) -> "SlurmExecutor":
        """Return the executor without `dependency`, which the first stages have already waited for."""
        return replace(self, dependency=None)

    @classmethod
    def asking_together(cls, supervisors: Sequence[SupervisorEntry]) -> AbstractContextManager[None]:
        """Return a context that begins with one query to Slurm about all of the runs."""
        return asked_together([supervisor["slurm_job_id"] for supervisor in supervisors])

    @classmethod
    def is_alive(cls, supervisor: SupervisorEntry) -> bool | None:
        """Return whether the job waits or runs; `None` if Slurm cannot be asked from here."""
        try:
            standing = job_standing(supervisor["slurm_job_id"])
        except RunError:
            return None
        if standing is None:
            return False
        # If Slurm has suspended the job or requeued it after its start, state.json does not tell its state.
        return (standing.is_active and not standing.is_suspended) or (standing.is_waiting and "nodes" not in supervisor)

    @classmethod
    def outcome(cls, run_dir: Path, supervisor: SupervisorEntry) -> State | None:
        """Return the state that Slurm reports for a run that waits, or that ended without a final state."""
        try:
            standing = job_standing(supervisor["slurm_job_id"])
        except RunError:
            return None
        if standing is None:
            return _unseen(run_dir)
        if standing.is_suspended:
            return State(state="running", reason=f"Slurm job {supervisor['slurm_job_id']} is suspended")
        if standing.is_active:
            # The job has started again since it was found waiting.
            return State(state="running") if "nodes" in supervisor else None
        if standing.is_waiting:
            waits = f" waits: {standing.reason}" if standing.reason != "None" else " waits"
            return State(state="queued", reason=f"Slurm job {supervisor['slurm_job_id']}{waits}")
        if standing.state == "CANCELLED":
            return State(state="cancelled", reason="the Slurm job was cancelled", ended=standing.ended)
        if standing.state == "COMPLETED":
            return State(state="succeeded", ended=standing.ended)
        code = standing.exit_code or 1
        words = _WORDS.get(standing.state, f"its batch script exited with code {code}, and left no word of why")
        reason = f"Slurm job {supervisor['slurm_job_id']}: {words}"
        return State(state="failed", exit_code=code, reason=reason, ended=standing.ended)

    @classmethod
    def place(cls, supervisor: SupervisorEntry) -> str | None:
        """Return the job id, and the nodes once the job has some."""
        number, nodes = supervisor.get("slurm_job_id"), supervisor.get("nodes")
        return number and f"Slurm job {number}{f' on {nodes}' if nodes else ''}"

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: SupervisorEntry, *, force: bool) -> None:
        """Cancel the job; Slurm gives its ranks time to save their work unless `force` is set.

        Raises:
            RunError: Slurm refuses, or cannot be asked from here.
        """
        cancel_jobs([supervisor["slurm_job_id"]], force=force)

    @classmethod
    def request_stop(cls, run_dir: Path, supervisor: SupervisorEntry) -> None:
        """Write a file that makes the tasks of the job save and end; the job is not requeued then.

        Raises:
            RunError: The run directory cannot be written.
        """
        try:
            ask_to_stop(run_dir, supervisor["slurm_job_id"])
        except OSError as error:
            raise RunError(f"{error.filename}: cannot be written: {error.strerror}") from None

    @classmethod
    def request_cancel_together(
        cls, runs: Sequence[tuple[Path, SupervisorEntry]], *, force: bool
    ) -> dict[Path, RunError]:
        """Cancel the jobs with one request."""
        try:
            cancel_jobs([supervisor["slurm_job_id"] for _, supervisor in runs], force=force)
        except RunError as error:
            if "job id" not in str(error):
                return {run_dir: error for run_dir, _ in runs}
            # Slurm refuses some of the job ids. Cancelling a job twice does no harm.
            return super().request_cancel_together(runs, force=force)
        return {}


def _limit_in_words(time: str) -> str:
    """Return a time limit; one without hours with its minutes, for `8` is often meant as hours."""
    minutes = minutes_of(time)
    is_plain = "-" in time or time.count(":") > 1 or not minutes
    return time if is_plain else f"{time} ({how_many(minutes or 0, 'minute')})"


def _cancel_quietly(number: str) -> None:
    with contextlib.suppress(RunError):  # the caller reports the refusal of another array
        cancel_jobs([number], force=True)


def _unseen(run_dir: Path) -> State | None:
    """Return the state of another user's run whose job Slurm hides; `None` for one's own run, whose job is gone.

    Clusters can hide the jobs of other users (PrivateData).
    """
    if os.geteuid() in (0, run_dir.stat().st_uid):
        return None
    return State(state=read_state(run_dir).state, reason="Slurm does not show you the jobs of the user whose run it is")
