"""Runs a job on a Slurm cluster: one task per rank, started by srun."""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from executors._gpu import gpu_named
from executors._script import run_directory_script
from executors._slurm_capacity import require_capacity
from executors._slurm_cluster import asked_together, cancel_jobs, job_standing, minutes_of, offered_nodes
from executors._state import State, read_state, write_state
from executors.base import Executor
from neva_recipes.config import RunError
from neva_recipes.config._node import Matches, NonNegative, Positive, Range
from neva_recipes.plan import Layout

if TYPE_CHECKING:
    from executors.job import Job

__all__ = ["SlurmExecutor"]

_Word = Annotated[str, Matches(r"[^\s\\'\"]+", "a word without spaces, quotes and backslashes")]
_Time = Annotated[str, Matches(r"(\d+-)?\d+(:\d+){0,2}", "a time as Slurm writes it, such as 30, 4:00:00 or 2-12")]
_Memory = Annotated[str, Matches(r"\d+[KMGT]?", "an amount of memory as Slurm writes it, such as 64G")]
_Text = Annotated[str, Matches(r"[^\\'\"]*", "a text without quotes and backslashes")]
_Image = Annotated[str, Matches(r"[\s\S]+", "the name of an image, or the path of its file")]
_OptionName = Annotated[str, Matches(r"[a-z][a-z0-9-]*", "the long name of an option of sbatch, without its dashes")]

_OWN_OPTIONS = (
    *("array", "chdir", "error", "export", "job-name", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
    *("output", "requeue", "signal", "wrap"),
)
"""Options of sbatch without which runs could not be told apart, followed or continued."""

_ELSEWHERE_OPTIONS = ("clusters", "parsable", "test-only", "wait")
"""Options of sbatch with which a job is not there, or is not known when sbatch has ended."""

_FIELDS_OF_OPTIONS = {"mem": "memory", "gres": "gpu_request", "gpus-per-node": "gpu_request"}

_VARIABLES_OF_A_JOB = re.compile(
    r"SLURM_(JOB|ARRAY|STEP|SUBMIT|NTASKS).*|SLURM_(LOCALID|NNODES|NODEID|NODELIST|NPROCS|PROCID|RESTART_COUNT|TASKS_PER_NODE)"
)
"""By these a job knows itself."""

_WORDS = {
    "TIMEOUT": "its time limit was reached before it could stop",
    "DEADLINE": "its deadline was reached",
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "a node did not boot",
    "OUT_OF_MEMORY": "it was killed for want of memory",
    "PREEMPTED": "it was preempted",
    "REVOKED": "it was taken back by another cluster",
}


@dataclass(frozen=True, kw_only=True)
class SlurmExecutor(Executor):
    """One task per rank of a Slurm job, submitted through submitit.

    Raises:
        RunError: Fields do not go together.
    """

    kind: ClassVar[str] = "slurm"
    answer_seconds: ClassVar[float] = 2.0
    outlives_command: ClassVar[bool] = True
    supervisor_entries: ClassVar[Mapping[str, Matches]] = MappingProxyType(
        {"slurm_job_id": Matches(r"\d+([_+]\d+)?", "the number of a Slurm job")}
    )

    partition: _Word | None = None
    """Partition, or several with commas; none for the cluster's default."""
    account: _Word | None = None
    """Account that is charged."""
    qos: _Word | None = None
    """Quality of service."""
    reservation: _Word | None = None
    """Reservation to run in."""
    time: _Time | None = None
    """Time limit, after which the job stops with its work saved and is requeued; none for the partition's."""
    gpu_request: Literal["gres", "gpus-per-node", "none"] = "gres"
    """How GPUs are asked for, one per rank: by --gres, by --gpus-per-node, or not at all."""
    gpu_model: Annotated[str, Matches(r"[A-Za-z0-9_.-]+", "a name of letters, digits, _, . and -")] | None = None
    """What the cluster calls its GPUs, such as h100, where it has several types."""
    cpus_per_task: Positive | None = None
    """Cores of every rank."""
    memory: _Memory | None = None
    """Memory of every node, such as 64G; 0 is all of it."""
    constraint: _Text | None = None
    """Features that the nodes must have."""
    nodelist: _Word | None = None
    """Nodes that must be among those of the job."""
    exclude: _Word | None = None
    """Nodes that must not be."""
    exclusive: bool = False
    """Whether no other job may share the nodes."""
    dependency: _Word | None = None
    """What must have happened before, such as afterok:1234."""
    mail_type: _Word | None = None
    """Events to send mail of, such as END,FAIL."""
    mail_user: _Word | None = None
    """Who gets the mail."""
    comment: _Text | None = None
    """Comment that Slurm keeps with the job."""
    signal_delay_s: Annotated[int, Range(minimum=1, maximum=65535)] = 90
    """Seconds before the time limit at which ranks are told to save their work and stop."""
    max_requeues: NonNegative | None = None
    """How often the job may go on after it has stopped; none for as often as it makes progress, 0 for never."""
    modules: list[str] = field(default_factory=list)
    """Environment modules to load."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell that the batch script runs before the ranks start."""
    sbatch: dict[_OptionName, _Text] = field(default_factory=dict)
    """Further options of sbatch by their long names; an empty value is a flag."""
    srun: list[str] = field(default_factory=list)
    """Further arguments of srun."""
    container_image: _Image | None = None
    """Image to run the ranks in, by pyxis and enroot."""
    container_mounts: list[str] = field(default_factory=list)
    """Paths in the container beside the run directory and the working directory, as SOURCE:TARGET[:ro]."""
    container_workdir: str | None = None
    """Working directory of the ranks in the container; none for the one of the command."""
    python: str | None = None
    """Python that runs the ranks, where it is another one than that of the command: inside a container."""
    code_snapshot: bool = True
    """Whether the job runs a copy of this code in its run directory, whatever is edited while it waits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.env:
            if _VARIABLES_OF_A_JOB.fullmatch(name):
                raise RunError(f"executor.env: {name} is set by Slurm for every job: leave it out")
        for name in self.sbatch:
            own = name.replace("-", "_")
            own = own if own in self.__dataclass_fields__ else _FIELDS_OF_OPTIONS.get(name, "")
            if own:
                raise RunError(f"executor.sbatch.{name}: is set by a field: executor.{own}")
            if name in _OWN_OPTIONS:
                raise RunError(f"executor.sbatch.{name}: is set by the executor itself: leave it out")
            if name in _ELSEWHERE_OPTIONS:
                raise RunError(
                    f"executor.sbatch.{name}: such a job could not be followed: leave it out"
                    f"{', and submit from a machine of that cluster' if name == 'clusters' else ''}"
                )
        seconds = 60 * (minutes_of(self.time) or 0) if self.time else 0
        if 0 < seconds <= self.signal_delay_s:
            raise RunError(
                f"executor.signal_delay_s={self.signal_delay_s}: a job of executor.time={self.time} would be told to "
                f"stop as it starts: take less than {seconds}, or more time"
            )
        if self.container_image is None:
            for name in ("container_mounts", "container_workdir"):
                if getattr(self, name):
                    raise RunError(f"executor.{name}: goes with executor.container_image, which is not set")

    def check(self, layout: Layout) -> None:
        """Accept every layout: what the cluster can give is asked when a job is started."""

    def require_ready(self, job: "Job") -> None:
        """Raise `RunError` if there is no Slurm here, or no partition that could ever run the job."""
        for program in ("sbatch", "srun", "sinfo", "squeue"):
            if shutil.which(program) is None:
                raise RunError(f"no Slurm here: {program} is not on PATH")
        if any(mark in str(job.run_dir) for mark in ("%j", "%t", "%A", "%a")):
            raise RunError(f"runs_dir: {str(job.run_dir)!r} has a % before a letter with a meaning to Slurm: rename it")
        if self.container_image is not None and any(mark in f"{job.run_dir}{job.cwd}" for mark in ",:"):
            raise RunError(f"runs_dir: {str(job.run_dir)!r} has a comma or colon and cannot be mounted in a container")
        require_capacity(self, job.layout, offered_nodes())
        # Slurm accepts a dependency on a job that never was, and waits for ever.
        for number in re.findall(r"(?<=:)\d+", self.dependency or ""):
            if job_standing(number) is None:
                raise RunError(f"executor.dependency={self.dependency}: Slurm knows of no job {number}")

    def gpu_type(self) -> str | None:
        """Return the type of GPU that `gpu_model` names, if it names one that is in the table."""
        return gpu_named(self.gpu_model.replace("_", " ")) if self.gpu_model else None

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env`, with unbuffered output and as many threads as a rank has cores, if that is known."""
        defaults = {"PYTHONUNBUFFERED": "1"}  # output goes to a pipe, and is to be seen as it comes
        if self.cpus_per_task is not None:
            defaults["OMP_NUM_THREADS"] = str(self.cpus_per_task)
        return defaults | self.env

    def script(self, job: "Job") -> str:
        """Return shell text that writes the run directory where it is missing, and submits the job."""
        from executors._slurm_submission import batch_script

        launcher = (sys.executable, "-P", "-m", "executors")
        return run_directory_script(job, launcher, {"sbatch.sh": batch_script(job, self)})

    def start(self, job: "Job", *, lock: int, lifeline: int | None) -> None:
        """Submit the job; it lives on when the command in the foreground is gone.

        Raises:
            RefusedError: Slurm refuses it.
            RunError: It cannot be submitted.
        """
        from executors._slurm_submission import submit, write_code

        def record(job_id: str) -> None:
            state = read_state(job.run_dir)
            supervisor = {"slurm_job_id": job_id}
            write_state(job.run_dir, replace(state, state="queued", supervisor=supervisor))

        try:
            if self.code_snapshot:
                write_code(job.run_dir)
            submit(job, self, record)
        except OSError as error:
            raise RunError(f"run {job.run_dir.name} cannot be submitted: {error}") from None

    @property
    def starts_together(self) -> bool:
        """Whether jobs can be one array; in a container each has a mount of its own."""
        return self.container_image is None

    def start_together(self, jobs: "Sequence[Job]", folder: Path) -> None:
        """Submit the jobs as one array for each layout that there is among them.

        Raises:
            RefusedError: Slurm refuses them; arrays that it had taken before are cancelled.
            RunError: They cannot be submitted.
        """
        from executors._slurm_submission import CODE_FILE, submit_array, write_code

        def record(job: "Job", job_id: str) -> None:
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
            with contextlib.ExitStack() as taken:
                for alike in shapes.values():
                    number = submit_array(alike, self, folder, record)
                    taken.callback(_cancel_quietly, number)
                taken.pop_all()
        except OSError as error:
            raise RunError(f"{folder}: cannot be submitted: {error}") from None

    def after(self, supervisors: Sequence[Mapping[str, Any]]) -> "SlurmExecutor":
        """Return the executor of a job that Slurm starts once other jobs have succeeded, or cancels."""
        ids = "".join(f":{supervisor['slurm_job_id']}" for supervisor in supervisors)
        if not ids:
            return self
        dependency = ",".join(filter(None, [self.dependency, f"afterok{ids}"]))
        return replace(self, dependency=dependency, sbatch={**self.sbatch, "kill-on-invalid-dep": "yes"})

    @classmethod
    def asking_together(cls, supervisors: Sequence[Mapping[str, Any]]) -> AbstractContextManager[None]:
        """Return a context that begins with one question to Slurm about all of the runs."""
        return asked_together([supervisor["slurm_job_id"] for supervisor in supervisors])

    @classmethod
    def is_alive(cls, supervisor: Mapping[str, Any]) -> bool | None:
        """Return whether the job waits or runs; none if Slurm cannot be asked from here."""
        try:
            standing = job_standing(supervisor["slurm_job_id"])
        except RunError:
            return None
        if standing is None:
            return False
        # One that Slurm has suspended, or put back into the queue after it had begun, is not what state.json says.
        return (standing.is_active and not standing.is_suspended) or (standing.is_waiting and "nodes" not in supervisor)

    @classmethod
    def outcome(cls, run_dir: Path, supervisor: Mapping[str, Any]) -> State | None:
        """Return what Slurm says of a run that waits, or whose end nobody has written down."""
        try:
            standing = job_standing(supervisor["slurm_job_id"])
        except RunError:
            return None
        if standing is None:
            return _unseen(run_dir)
        if standing.is_suspended:
            return State(state="running", reason=f"Slurm job {supervisor['slurm_job_id']} is suspended")
        if standing.is_active:
            # It has been started again since it was found waiting.
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
    def place(cls, supervisor: Mapping[str, Any]) -> str | None:
        """Return the number of the job, and its nodes once it has some."""
        number, nodes = supervisor.get("slurm_job_id"), supervisor.get("nodes")
        return number and f"Slurm job {number}{f' on {nodes}' if nodes else ''}"

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: Mapping[str, Any], *, force: bool) -> None:
        """Cancel the job; Slurm gives its ranks time to save their work, with `force` none.

        Raises:
            RunError: Slurm refuses, or cannot be asked from here.
        """
        cancel_jobs([supervisor["slurm_job_id"]], force=force)

    @classmethod
    def request_cancel_together(
        cls, runs: Sequence[tuple[Path, Mapping[str, Any]]], *, force: bool
    ) -> dict[Path, RunError]:
        """Cancel the jobs by one request."""
        try:
            cancel_jobs([supervisor["slurm_job_id"] for _, supervisor in runs], force=force)
        except RunError as error:
            if "job id" not in str(error):
                return {run_dir: error for run_dir, _ in runs}
            # Of some Slurm refuses it; a job can be cancelled twice.
            return super().request_cancel_together(runs, force=force)
        return {}


def _cancel_quietly(number: str) -> None:
    with contextlib.suppress(RunError):  # it is the refusal of another that is told
        cancel_jobs([number], force=True)


def _unseen(run_dir: Path) -> State | None:
    """Return how a run of another user stands whose job Slurm does not show; none if there is no such job.

    Clusters can keep jobs from all but their users (PrivateData), and then say nothing of them.
    """
    if os.geteuid() in (0, run_dir.stat().st_uid):
        return None
    return State(state=read_state(run_dir).state, reason="Slurm does not show you the jobs of the user whose run it is")
