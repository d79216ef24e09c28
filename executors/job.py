"""The one job description that every executor takes."""

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from executors._code_version import code_version
from executors._kinds import kind_class
from executors._state import read_json
from executors.base import Executor
from neva_recipes.config import RunError
from neva_recipes.plan import Layout, Plan
from neva_recipes.plan.serialization import plan_to_json
from neva_recipes.secrets import is_secret

__all__ = ["WORKER_ARGV", "Job", "executor_class", "load_executor", "read_job_record"]

_ONE_PROCESS = Layout(
    num_nodes=1,
    processes_per_node=1,
    tensor_model_parallel_size=1,
    pipeline_model_parallel_size=1,
    context_parallel_size=1,
    data_parallel_size=1,
    num_microbatches=1,
    stages=(),
)

WORKER_ARGV = (sys.executable, "-P", "-m", "neva_model.worker")
"""What every rank runs; -P keeps files of the current directory from standing in for installed modules."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe, or a program of one process, made ready to be started in one place.

    Attributes:
        name: Name of the run, as it was given.
        created: When the run was first planned (ISO 8601).
        run_dir: Absolute path of its directory.
        recipe_yaml: The complete recipe as text; none for a program that trains nothing.
        plan: What the recipe is, what it costs, and what was found about it; none where there is no recipe.
        executor: Where it runs.
        argv: Program and arguments of every rank; the run directory is appended.
        env: Variables set for every rank beside those of the rank itself.
        cwd: Absolute path of the directory the ranks start in.
        command_line: Fields of the recipe that were set on the command line, by dotted path, each with the value it had
            before.
        inputs: Other files of the run directory that the program reads: name and text of each.
        stages: Of a pipeline, the jobs of stages whose directories have been written with its own and are complete; the
            others are read from theirs.
    """

    name: str
    created: str
    run_dir: Path
    recipe_yaml: str | None = field(default=None, repr=False)
    plan: Plan | None = field(default=None, repr=False)
    executor: Executor
    argv: tuple[str, ...] = WORKER_ARGV
    env: dict[str, str] = field(repr=False)
    cwd: Path
    command_line: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict, repr=False)
    stages: "tuple[Job, ...]" = field(default=(), repr=False)

    @property
    def layout(self) -> Layout:
        """How many processes on how many machines; a program without a recipe is one process."""
        if self.plan is None:
            return _ONE_PROCESS
        assert self.plan.layout is not None  # a job is made of a plan without errors of the recipe
        return self.plan.layout

    @property
    def missing(self) -> tuple[str, ...]:
        """What keeps it from being run here, a line each: inputs that are not set, and files that cannot be used."""
        errors = self.plan.errors if self.plan is not None else ()
        return tuple(finding.line() for finding in errors if finding.about == "files")

    @cached_property
    def files(self) -> dict[str, str]:
        """What its processes read in the run directory: name and text of each file."""
        recipe = {} if self.recipe_yaml is None else {"recipe.yaml": self.recipe_yaml}
        plan = {} if self.plan is None else {"plan.json": plan_to_json(self.plan)}
        return recipe | plan | self.inputs

    @property
    def command(self) -> tuple[str, ...]:
        """Program and arguments of one rank, complete."""
        return (*self.argv, str(self.run_dir))

    def script(self) -> str:
        """Return shell text that writes the run directory where it is missing, and starts the job in the foreground."""
        return self.executor.script(self)

    def to_json(self) -> str:
        """Return the content of job.json: what is started where, by which code; secret values are left out."""
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


def read_job_record(run_dir: Path) -> dict[str, Any]:
    """Return job.json of a run directory.

    Raises:
        RunError: It is missing or not what `Job.to_json` writes.
    """
    path = run_dir / "job.json"
    try:
        record = read_json(path)
        kinds = {"name": str, "created": str, "argv": list, "cwd": str, "world_size": int, "executor": dict}
        if not all(isinstance(record[name], kind) for name, kind in kinds.items()):
            raise ValueError("not a job description")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read as the job of a run: {error}") from None
    return record


def executor_class(record: Mapping[str, Any]) -> type[Executor]:
    """Return the class of the executor that job.json names.

    Raises:
        RunError: There is no executor of that name.
        RecipeError: It is of a package that cannot be imported.
    """
    try:
        return kind_class(record["executor"].get("kind"))
    except RunError as error:
        raise RunError(f"run {record['name']}: {error}") from None


def load_executor(record: Mapping[str, Any], environ: Mapping[str, str]) -> Executor:
    """Return the executor that job.json describes; its secret variables are taken from `environ`.

    Raises:
        RunError: The description is of no known executor, or a secret variable is not set.
    """
    cls = executor_class(record)
    fields = {name: value for name, value in record["executor"].items() if name not in ("kind", "secret_env")}
    secrets = record["executor"].get("secret_env", [])
    for name in secrets:
        if name not in environ:
            raise RunError(
                f"{name} was set for run {record['name']} and is not stored in it: set it in the environment"
            )
    try:
        return cls(**{**fields, "env": {**fields.get("env", {}), **{name: environ[name] for name in secrets}}})
    except TypeError as error:
        raise RunError(f"executor of run {record['name']}: {error}") from None
