"""The contract between a job and the executor that starts, watches and stops it."""

import dataclasses
import json
import os
import shlex
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

from executors.code_version import code_version
from executors.findings import too_few_visible
from executors.process.rank import WORKER_MODULE
from executors.process.surroundings import RANK_VARIABLES, SLURM, launcher_of
from neva_recipes.config import ConfigNode, Environment, Matches, PlainTable, RunError, config_dataclass
from neva_recipes.plan import Finding, Layout, Plan
from neva_recipes.plan.cost.gpus import find_gpu
from neva_recipes.plan.fitting.machine import CpuMachine
from neva_recipes.plan.huggingface import cached_models
from neva_recipes.plan.serialization import plan_to_json
from neva_recipes.run_directory.layout import PLAN_FILE, RECIPE_FILE
from neva_recipes.run_directory.state import State
from neva_recipes.secrets import is_secret, secret_in, secret_names
from neva_recipes.table import folded_command

__all__ = ["ONE_PROCESS", "WORKER_ARGV", "Executor", "Job", "RefusedError", "SupervisorEntry"]

ONE_PROCESS = Layout(
    num_nodes=1,
    processes_per_node=1,
    tensor_model_parallel_size=1,
    pipeline_model_parallel_size=1,
    context_parallel_size=1,
    data_parallel_size=1,
    num_microbatches=1,
    stages=(),
)
"""The layout of a program without a recipe."""

WORKER_ARGV = (sys.executable, "-P", "-m", WORKER_MODULE)
"""The command of every rank; -P keeps files of the current directory from shadowing installed modules."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe, or a program of one process, that is ready to be started by an executor.

    Attributes:
        name: Name of the run, as the user gave it.
        created: When the run was first planned (ISO 8601).
        run_dir: Absolute path of the run directory.
        recipe_yaml: The complete recipe as text; `None` for a program that trains nothing.
        plan: The recipe, its cost and the findings about it; `None` if there is no recipe.
        executor: Where it runs.
        argv: Program and arguments of every rank; the run directory is appended.
        env: Environment variables of every rank, apart from those that differ by rank.
        cwd: Absolute path of the directory that the ranks start in.
        command_line: Fields of the recipe that were set on the command line: dotted path and previous value of each.
        inputs: Further files of the run directory that the program reads: name and text of each.
        reads: Absolute paths that its processes read beside those its recipe names; outputs of other stages that do
            not exist yet among them.
        on_gpu: Whether a program without a recipe uses a GPU.
        stages: For a pipeline, the jobs of the stages whose complete directories were written together with its own;
            the jobs of the other stages are read from their directories.
    """

    name: str
    created: str
    run_dir: Path
    recipe_yaml: str | None = field(default=None, repr=False)
    plan: Plan | None = field(default=None, repr=False)
    executor: "Executor"
    argv: tuple[str, ...] = WORKER_ARGV
    env: dict[str, str] = field(repr=False)
    cwd: Path
    command_line: PlainTable = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict, repr=False)
    reads: tuple[Path, ...] = ()
    on_gpu: bool = False
    stages: "tuple[Job, ...]" = field(default=(), repr=False)

    @property
    def layout(self) -> Layout:
        """Number of nodes and processes; a program without a recipe is one process."""
        if self.plan is None:
            return ONE_PROCESS
        assert self.plan.layout is not None  # a plan whose recipe has no errors has a layout
        return self.plan.layout

    @property
    def missing(self) -> tuple[str, ...]:
        """One line for each input that is not set and each file that cannot be used on this machine."""
        errors = self.plan.errors if self.plan is not None else ()
        return tuple(finding.line() for finding in errors if finding.about == "files")

    @cached_property
    def files(self) -> dict[str, str]:
        """The files of the run directory that its processes read: name and text of each."""
        recipe = {} if self.recipe_yaml is None else {RECIPE_FILE: self.recipe_yaml}
        plan = {} if self.plan is None else {PLAN_FILE: plan_to_json(self.plan)}
        return recipe | plan | self.inputs

    @property
    def command(self) -> tuple[str, ...]:
        """The complete command of one rank."""
        return (*self.argv, str(self.run_dir))

    def script(self) -> str:
        """Return a shell script that writes the run directory if it is missing and starts the job in the foreground."""
        return self.executor.script(self)

    def to_json(self) -> str:
        """Return the content of job.json: the command, the executor and the code version, without secret values."""
        record = {
            "name": self.name,
            "created": self.created,
            "argv": list(self.argv),
            "env": {name: value for name, value in self.env.items() if not is_secret(name, value)},
            "cwd": str(self.cwd),
            "command_line": self.command_line,
            "num_nodes": self.layout.num_nodes,
            "processes_per_node": self.layout.processes_per_node,
            "world_size": self.layout.world_size,
            "executor": self.executor.record(),
            "code": code_version(),
            "python": sys.version.split()[0],
            "hostname": socket.gethostname(),
        }
        return json.dumps(record, indent=2) + "\n"


SupervisorEntry: TypeAlias = Mapping[str, Any]
"""What state.json holds of the supervisor of a run; an executor names what its own has at least."""


class RefusedError(RunError):
    """The executor's backend, such as Slurm, refuses a job; nothing of the job has been started."""


@config_dataclass
class Executor(ConfigNode, ABC):
    """Starts, watches and stops the processes of a job; a subclass is a frozen dataclass of plain fields.

    Fields are checked against their annotations, as in a recipe; the docstring below each field describes it.
    A subclass sets `kind` and implements the abstract methods; docs/executors.md describes their contract.

    Raises:
        RecipeError: The annotation of a field does not allow its value; the message starts with `executor.FIELD`.
        RunError: `env` holds a variable that the executor sets itself, or a secret under a name that does not say so.
    """

    root = "executor"

    kind: ClassVar[str]
    """Name of the executor in job.json and on the command line."""

    answer_seconds: ClassVar[float] = 0.0
    """How long one that waits for a run goes by an answer of `is_alive` and `outcome` before it asks again."""

    outlives_command: ClassVar[bool] = False
    """Whether a run goes on when the command that shows it is gone; Ctrl-C stops it all the same."""

    takes_stop: ClassVar[bool] = False
    """Whether `request_stop` is there to be used."""

    supervisor_entries: ClassVar[Mapping[str, type | Matches]] = MappingProxyType({})
    """What the entry of a run in state.json holds at least, by name; a run of which it does not is `lost`."""

    env: Environment = field(default_factory=dict, repr=False)
    """Environment variables for every process; secret values are passed on but written nowhere."""
    gpu: str | None = None
    """Type of its GPUs, such as a100-40g, for memory and time; None means what the place tells of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        find_gpu(self.gpu, f"{self.root}.gpu=")
        for name, value in self.env.items():
            if name in RANK_VARIABLES:
                raise RunError(f"executor.env: {name} is set by the executor itself: leave it out")
            if launcher := launcher_of(name, without=SLURM):  # srun has settings among its variables
                raise RunError(
                    f"executor.env: by {name} {launcher} tells processes of their place, which no rank here is to "
                    "hear of: leave it out"
                )
            if not is_secret(name, value) and (kind := secret_in(value, os.environ)):
                raise RunError(
                    f"executor.env.{name}: holds {kind}, and a variable of this name is written to files: "
                    f"pass it on under a name that says it is secret, such as {name}_TOKEN"
                )

    @abstractmethod
    def check(self, layout: Layout) -> None:
        """Raise `RunError` if this executor cannot give a job of this layout what it needs."""

    def require_ready(self, job: Job) -> None:
        """Raise `RunError` if the job cannot be started there now; called before anything is written.

        A dry run does not call this: the checks may take seconds, or need a service that this machine cannot reach.
        """
        return None

    def gpu_type(self) -> str | None:
        """Return the detected type of its GPUs, in any of the spellings that `gpu` takes.

        `None`, the default, if the type cannot be detected or is not in `neva_recipes.plan.cost.gpus`.
        """
        return None

    def planned_gpu(self) -> str | None:
        """Return the type of GPU that plans are for: `gpu`, else the detected type; `None` if neither is known."""
        return self.gpu_type() if self.gpu is None else self.gpu

    def cpu_machine(self) -> CpuMachine | None:
        """Return the machine that its runs train on without a GPU; `None` if they get a GPU or this is not known."""
        return None

    def fetched_models(self) -> Path:
        """Return the folder in which Hugging Face's libraries look for models there; it may not be on this machine."""
        return cached_models({**os.environ, **self.env})

    def lacks(self, package: str) -> bool:
        """Return whether its processes cannot import a Python package; `False` if this machine cannot tell."""
        return False

    def advise(self, plan: Plan) -> Iterable[Finding]:
        """Return warnings and notes on what a job of this plan would ask for; by default on the GPUs it shows."""
        return too_few_visible(self.env, plan)

    @abstractmethod
    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return the variables that every process gets, apart from those of its rank: `env` and defaults."""

    @abstractmethod
    def script(self, job: Job) -> str:
        """Return a script that starts the job when pasted into a shell."""

    def in_short(self, job: Job) -> tuple[str, str]:
        """Return a title and the main part of the script; by default the command of each process."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in job.env.items() if not is_secret(name, value)]
        size = job.layout.world_size
        title = f"Command of each of {size} processes" if size > 1 else "Command of 1 process"
        return title, folded_command([*variables, *map(shlex.quote, job.command)])

    def asks_for(self, layout: Layout) -> str:
        """Return what a job of this layout asks of a cluster, in a few words; empty, the default, without one."""
        return ""

    @abstractmethod
    def start(self, job: Job, *, lock: int, lifeline: int | None) -> None:
        """Start the job of a written run directory; return once it runs or has already ended.

        Args:
            job: The job. Its state is `created`; from here on the executor and its processes write the state.
            lock: Open file descriptor that holds the lock of the run directory; to be kept open while the run lives.
            lifeline: Readable file descriptor that reaches end of file when the command in the foreground has ended;
                the run is to be cancelled then. `None` for a detached run.

        Raises:
            RefusedError: The backend refuses the job; the run directory is removed if this was its first start.
            RunError: The job could not be started.
        """

    @property
    def starts_together(self) -> bool:
        """Whether the executor implements `start_together`."""
        return False

    def start_together(self, jobs: "Sequence[Job]", folder: Path) -> None:
        """Start jobs of this executor that have no dependencies with one submission, otherwise as `start` does.

        Args:
            jobs: The jobs; when this returns, the state.json of each holds its entry `supervisor`.
            folder: Folder for the files that the jobs share.

        Raises:
            RefusedError: The backend refuses the jobs, and none has been started.
            RunError: They could not be started.
        """
        raise NotImplementedError

    def after(self, supervisors: Sequence[SupervisorEntry]) -> "Executor | None":
        """Return an executor that starts a job once other runs have succeeded, and drops it if one of them has not.

        Args:
            supervisors: The entries `supervisor` in state.json of those runs; may be empty.

        Returns:
            `None`, the default, if the backend has no dependencies between jobs.
        """
        return None

    def of_later_stage(self) -> "Executor":
        """Return the executor of a stage that waits for others; differs if a field applies to first stages only."""
        return self

    @classmethod
    def asking_together(cls, supervisors: Sequence[SupervisorEntry]) -> AbstractContextManager[None] | None:
        """Return a context in which `is_alive` and `outcome` of several runs share one query to the backend.

        Args:
            supervisors: The entries `supervisor` in state.json of those runs.

        Returns:
            `None`, the default, if each run needs a query of its own.
        """
        return None

    @classmethod
    @abstractmethod
    def is_alive(cls, supervisor: SupervisorEntry) -> bool | None:
        """Return whether the supervisor of a run, given by its entry in state.json, still exists; `None` if unknown."""

    @classmethod
    def outcome(cls, run_dir: Path, supervisor: SupervisorEntry) -> State | None:
        """Return the state that the backend reports for a run whose state.json is not final; by default `None`.

        Called when `is_alive` is false, and for a queued run. The caller writes a final state (its exit code may be
        missing) to state.json; any other state, such as `queued` with the reason why the run waits, is only shown.
        """
        return None

    @classmethod
    def place(cls, supervisor: SupervisorEntry) -> str | None:
        """Return what identifies a run in the backend, such as "Slurm job 17"; `None`, the default, for nothing.

        Before a run is started, its entry in state.json is not one of this executor.
        """
        return None

    @classmethod
    @abstractmethod
    def request_cancel(cls, run_dir: Path, supervisor: SupervisorEntry, *, force: bool) -> None:
        """Ask for the end of a run and return at once; with `force`, its processes get no time to end by themselves.

        Raises:
            RunError: The request cannot be made from here.
        """

    @classmethod
    def request_cancel_together(
        cls, runs: Sequence[tuple[Path, SupervisorEntry]], *, force: bool
    ) -> dict[Path, RunError]:
        """Ask for the end of several runs, each as `request_cancel` does; by default one after the other.

        Args:
            runs: Run directory and entry `supervisor` of each run.
            force: As for `request_cancel`.

        Returns:
            The error of each run for which the request cannot be made.
        """
        refused = {}
        for run_dir, supervisor in runs:
            try:
                cls.request_cancel(run_dir, supervisor, force=force)
            except RunError as error:
                refused[run_dir] = error
        return refused

    @classmethod
    def request_stop(cls, run_dir: Path, supervisor: SupervisorEntry) -> None:
        """Ask the ranks of a training run to save after the current step and to end with exit code 75; return at once.

        Called only for executors with `takes_stop`. The ranks have no time limit, and the run is not started again.

        Raises:
            RunError: The request cannot be made from here.
        """
        raise NotImplementedError

    def record(self) -> PlainTable:
        """Return the executor as job.json holds it: every field, but only the names of secret variables."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values["env"] = {name: value for name, value in self.env.items() if not is_secret(name, value)}
        return {"kind": self.kind, **values, "secret_env": secret_names(self.env)}
