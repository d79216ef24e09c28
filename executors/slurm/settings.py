"""The fields of the Slurm executor and their checks."""

import re
from dataclasses import field
from typing import Annotated, Literal

from executors.base import Executor
from executors.slurm.cluster import minutes_of
from executors.slurm.setup import require_shell
from neva_recipes.config import Matches, NonNegative, PathOn, Positive, Range, RunError, TherePath, config_dataclass

__all__ = ["SlurmSettings"]

_Word = Annotated[str, Matches(r"[^\s\\'\"]+", "a word without spaces, quotes and backslashes")]
_Time = Annotated[str, Matches(r"(\d+-)?\d+(:\d+){0,2}", "a time as Slurm writes it, such as 30, 4:00:00 or 2-12")]
_Memory = Annotated[str, Matches(r"\d+[KMGT]?", "an amount of memory as Slurm writes it, such as 64G")]
_Text = Annotated[str, Matches(r"[^\\'\"]*", "a text without quotes and backslashes")]
_Image = Annotated[
    str,
    Matches(r"[\s\S]+", "the name of an image, or the path of its file"),
    PathOn("another", "on the node (~ stands for nothing there)"),
]
_JOB = r"\d+(_(\d+|\*|\[\d+(-\d+)?\]))?"
_CONDITION = rf"(?i:after(:{_JOB}(\+\d+)?)+|after(any|burstbuffer|corr|notok|ok)(:{_JOB})+|singleton)"
_Dependency = Annotated[
    str,
    Matches(
        rf"{_CONDITION}((,{_CONDITION})*|(\?{_CONDITION})*)|{_JOB}(,{_JOB})*",
        "conditions as sbatch has them, such as afterok:12:13,afterany:14, all joined by commas (all must be met) or "
        "all by ? (one must)",
    ),
]
_OptionName = Annotated[str, Matches(r"[a-z][a-z0-9-]*", "the long name of an option of sbatch, without its dashes")]

_OWN_OPTIONS = (
    *("array", "chdir", "error", "export", "job-name", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
    *("output", "requeue", "signal", "wrap"),
)
"""Options of sbatch that the executor needs to tell runs apart, and to follow and requeue them."""

_ELSEWHERE_OPTIONS = ("clusters", "parsable", "test-only", "wait")
"""Options of sbatch with which the job runs elsewhere or not at all, or its job id is not known in time."""

_FIELDS_OF_OPTIONS = {"mem": "memory", "gres": "gpu_request", "gpus-per-node": "gpu_request"}

_LEAST_MEGABYTES = 4096
"""A smaller memory without a unit is taken for gigabytes: a rank on a GPU takes several of them."""

_VARIABLES_OF_A_JOB = re.compile(
    r"SLURM_(JOB|ARRAY|STEP|SUBMIT|NTASKS).*|SLURM_(LOCALID|NNODES|NODEID|NODELIST|NPROCS|PROCID|RESTART_COUNT|TASKS_PER_NODE)"
)
"""Variables in which Slurm describes a job to its processes."""


@config_dataclass
class SlurmSettings(Executor):
    """What a job asks of a Slurm cluster.

    Raises:
        RunError: Fields do not go together.
    """

    partition: _Word | None = None
    """Partition, or several with commas; None for the cluster's default."""
    account: _Word | None = None
    """Account that is charged."""
    qos: _Word | None = None
    """Quality of service."""
    reservation: _Word | None = None
    """Reservation to run in."""
    time: _Time | None = None
    """Time limit, after which the job stops with its work saved and is requeued; None for the partition's."""
    gpu_request: Literal["gres", "gpus-per-node", "none"] = "gres"
    """How GPUs are asked for, one per rank: by --gres, by --gpus-per-node, or not at all."""
    gpu_model: Annotated[str, Matches(r"[A-Za-z0-9_.-]+", "a name of letters, digits, _, . and -")] | None = None
    """What the cluster calls its GPUs, such as h100, where it has several types."""
    cpus_per_task: Positive | None = None
    """Cores of every rank."""
    memory: _Memory | None = None
    """Memory of every node, such as 64G (a number alone is megabytes); 0 is all of it."""
    constraint: _Text | None = None
    """Features that the nodes must have."""
    nodelist: _Word | None = None
    """Nodes that must be among those of the job."""
    exclude: _Word | None = None
    """Nodes that must not be."""
    exclusive: bool = False
    """Whether no other job may share the nodes."""
    dependency: _Dependency | None = None
    """What must have happened before, such as afterok:1234; of a pipeline, before its first stages."""
    mail_type: _Word | None = None
    """Events to send mail of, such as END,FAIL."""
    mail_user: _Word | None = None
    """Who gets the mail."""
    comment: str | None = None
    """Comment that Slurm keeps with the job, such as JSON."""
    signal_delay_s: Annotated[int, Range(minimum=1, maximum=65535)] = 90
    """Seconds before the time limit at which ranks are told to save their work and stop."""
    max_requeues: NonNegative | None = None
    """How often the job may go on after it has stopped; None for as often as it makes progress, 0 for never."""
    modules: list[str] = field(default_factory=list)
    """Environment modules to load."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell that the batch script runs before the ranks start; one that fails ends the job."""
    sbatch: dict[_OptionName, str] = field(default_factory=dict)
    """Further options of sbatch by their long names; an empty value is a flag."""
    srun: list[str] = field(default_factory=list)
    """Further arguments of srun."""
    container_image: _Image | None = None
    """Image to run the ranks in, by pyxis and enroot."""
    container_mounts: list[TherePath] = field(default_factory=list)
    """Paths in the container beside the run directory and the working directory, as SOURCE:TARGET[:ro]."""
    container_workdir: TherePath | None = None
    """Working directory of the ranks in the container; None for the one of the command."""
    python: TherePath | None = None
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
        if self.memory is not None and self.memory.isdigit() and 0 < int(self.memory) < _LEAST_MEGABYTES:
            raise RunError(
                f"executor.memory={self.memory}: {self.memory} means {self.memory} MB in Slurm: write {self.memory}G "
                f"({self.memory}M if so little is meant)"
            )
        seconds = 60 * (minutes_of(self.time) or 0) if self.time else 0
        if 0 < seconds <= self.signal_delay_s:
            raise RunError(
                f"executor.signal_delay_s={self.signal_delay_s}: a job of executor.time={self.time} would be told to "
                f"stop as it starts: take less than {seconds}, or more time"
            )
        require_shell(self.setup)
        if self.container_image is None:
            for name in ("container_mounts", "container_workdir"):
                if getattr(self, name):
                    raise RunError(f"executor.{name}: goes with executor.container_image, which is not set")
