"""Runs jobs with NVIDIA's NeMo-Run: its local, Docker, Slurm, SkyPilot, Kubeflow, DGX Cloud and Lepton executors.

`NemoRunExecutor` is an executor of this project; `to_nemo_run` converts a recipe for NeMo-Run's own API.

NeMo-Run is optional and imported only when it is about to start a job.
"""

import importlib.util
import os
import re
import shutil
import sys
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import fiddle as fdl

from executors.base import Job, SupervisorEntry
from executors.job_record import read_job_record
from executors.launch import run
from executors.process.gpu import local_gpu_type
from executors.process.machine import this_cpu_machine
from executors.process.supervised import SupervisedExecutor
from neva_recipes.config import (
    ConfigNode,
    Draft,
    DraftNode,
    Matches,
    Range,
    Recipe,
    RunError,
    TherePath,
    UserError,
    config,
    config_dataclass,
    field_types,
    local_path,
    with_absolute_inputs,
)
from neva_recipes.interruption import ends_told_by_command
from neva_recipes.plan import Layout
from neva_recipes.plan.fitting.machine import CpuMachine
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.secrets import is_secret, mask, secret_in, secret_names, secret_values

__all__ = ["INSTALL", "NemoRunExecutor", "require_nemo_run", "to_nemo_run", "train"]

INSTALL = 'pip install "nemo-run==0.11.1" "leptonai==0.27.3"'
"""The command that installs NeMo-Run; its import fails with later versions of leptonai."""

_ONE_MACHINE = ("local", "docker")


@config_dataclass
class NemoRunExecutor(SupervisedExecutor):
    """Has NeMo-Run start the ranks, and stays with them on this machine until they have ended."""

    kind: ClassVar[str] = "nemo_run"
    launcher: ClassVar[str | None] = "executors.nemo_run.launcher"

    grace_seconds: Annotated[float, Range(minimum=0, maximum=3600)] = 60.0
    """Seconds that NeMo-Run gets to stop the ranks; what it has left on this machine is killed then."""

    backend: Literal["local", "docker", "slurm", "skypilot", "kubeflow", "dgxcloud", "lepton"] = "local"
    """Which executor of NeMo-Run."""

    options: dict[
        Annotated[str, Matches(r"[A-Za-z_][A-Za-z0-9_]*", "a name of letters, digits and underscores")], str
    ] = field(default_factory=dict)
    """Fields of NeMo-Run's executor class, each value as YAML text; `env:NAME` takes it from a variable."""

    python: TherePath | None = None
    """Python that runs the ranks, where it is another one than that of the command: on another machine."""

    def check(self, layout: Layout) -> None:
        """Raise `RunError` if NeMo-Run is not installed, or the backend has one node and the job needs several.

        Also if an option holds a secret in clear text: even a dry run writes a script that holds every option.
        """
        require_nemo_run()
        for name, text in self.options.items():
            if not text.startswith("env:") and (is_secret(name, text) or secret_in(text, os.environ)):
                raise RunError(
                    f"executor.options.{name}: would be written to files: put it into a variable and set "
                    f"executor.options.{name}=env:VARIABLE"
                )
        if self.backend in _ONE_MACHINE and layout.num_nodes != 1:
            raise RunError(
                f"trainer.num_nodes={layout.num_nodes}: executor.backend={self.backend} runs on one machine; "
                "set trainer.num_nodes=1 or take the backend of a cluster"
            )

    def require_ready(self, job: Job) -> None:
        """Raise `RunError` if NeMo-Run or its backend would refuse the job, or NeMo-Run would mangle a part of it."""
        from executors.nemo_run.place import require_place

        nemo_executor = self._required(job)
        if self.backend == "local" and self.python and shutil.which(self.python) is None:
            raise RunError(
                f"executor.python={self.python}: no such program here: set it to a Python that has this project, "
                "or leave it out"
            )
        require_place(self.backend, nemo_executor, lambda: self._request(job, nemo_executor))

    def _required(self, job: Job) -> Any:
        """Return NeMo-Run's executor of a job; raise `RunError` if it would refuse, store or mangle a part of it."""
        if self.backend != "local" and (names := secret_names(self.env)):
            raise RunError(
                f"executor.env: NeMo-Run would write {', '.join(names)} to files: "
                "set it where the ranks run, or take backend=local"
            )
        for path in (self.python or sys.executable, *([] if self.backend == "local" else [str(job.run_dir)])):
            if found := re.search(r"[^A-Za-z0-9/._+=@-]", path):
                raise RunError(
                    f"{path!r}: NeMo-Run does not quote paths, and this one holds {found[0]!r}: choose another one"
                )
            if self.backend == "slurm" and "/nemo_run" in path:
                raise RunError(
                    f"{path!r}: NeMo-Run puts a path of its own for /nemo_run in Slurm's scripts: choose another one"
                )
        from executors.nemo_run.place import require_gpus

        nemo_executor = self.nemo_executor(job.layout.num_nodes, job.layout.processes_per_node, job.run_dir)
        if job.plan is not None and job.plan.recipe.trainer.accelerator != "cpu":
            require_gpus(self.options, nemo_executor, job.layout.processes_per_node)
        return nemo_executor

    def nemo_executor(self, num_nodes: int, processes_per_node: int, run_dir: Path) -> Any:
        """Return NeMo-Run's executor for a job of this size.

        Raises:
            RunError: NeMo-Run is not installed, or an option is wrong.
        """
        require_nemo_run()
        from executors.nemo_run.task import make_executor

        return make_executor(
            self.backend,
            self.options,
            num_nodes=num_nodes,
            processes_per_node=processes_per_node,
            run_dir=run_dir,
            environ=os.environ,
        )

    def request(self, job: Job) -> str:
        """Return the request that NeMo-Run would send to its backend, as in its own dry run; starts nothing.

        Raises:
            RunError: NeMo-Run would refuse the job, or lacks the package of its backend.
        """
        text = self._request(job, self._required(job))
        hidden = [os.environ[text[4:]] for text in self.options.values() if text.startswith("env:")]
        return mask(text, [*hidden, *secret_values(os.environ)])

    def _request(self, job: Job, nemo_executor: object) -> str:
        from executors.nemo_run.task import make_script, request_text

        return request_text(nemo_executor, make_script(nemo_executor, self.python, job.run_dir))

    def gpu_type(self) -> str | None:
        """Return the type of this machine's GPUs for backends that run on it."""
        return local_gpu_type() if self.backend in _ONE_MACHINE else None

    def cpu_machine(self) -> CpuMachine | None:
        """Return this machine for the local backend, unless it has a GPU."""
        return this_cpu_machine(self.env) if self.backend == "local" else None

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env` with defaults for unbuffered output and, on this machine, for the number of threads."""
        defaults = {"PYTHONUNBUFFERED": "1"}  # output goes to a pipe and should be shown at once
        if self.backend in _ONE_MACHINE:
            cores = len(os.sched_getaffinity(0))
            defaults["OMP_NUM_THREADS"] = str(max(1, cores // layout.processes_per_node))
        return {name: value for name, value in defaults.items() if name not in os.environ} | self.env

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: SupervisorEntry, *, force: bool) -> None:
        """Ask the supervisor to stop the run, and return at once.

        With `force` it kills ranks of this machine without grace. Ranks on other machines can only be reached through
        NeMo-Run, which is then asked to stop the job as without `force`.

        Raises:
            RunError: The supervisor is on another machine or belongs to another user.
        """
        is_here = read_job_record(run_dir)["executor"].get("backend") == "local"
        super().request_cancel(run_dir, supervisor, force=force and is_here)


def require_nemo_run() -> None:
    """Raise `RunError` with the installation command if NeMo-Run is not installed; does not import it."""
    if importlib.util.find_spec("nemo_run") is None:
        raise RunError(f"NeMo-Run is not installed: {INSTALL}")


def to_nemo_run(recipe: Draft[Recipe], *, name: str | None = None, runs_dir: str | Path = "runs") -> Any:
    """Return a recipe as a `nemo_run.Partial` of `train`, for `nemo_run.run` and `nemo_run.Experiment`.

    Its fields can be changed like those of the recipe: `partial.recipe.optim.lr = 1e-5`.

    Args:
        recipe: What to train.
        name: Name of the run; `None` means the recipe's.
        runs_dir: Folder of the run directory.

    Raises:
        RunError: NeMo-Run is not installed.
    """
    require_nemo_run()
    import nemo_run

    nemo_config = fdl.cast(nemo_run.Config, with_absolute_inputs(recipe))
    return nemo_run.Partial(
        train, recipe=nemo_config, name=name, runs_dir=str(local_path(runs_dir, "runs_dir").resolve())
    )


def train(recipe: Recipe, name: str | None = None, runs_dir: str = "runs") -> None:
    """Run a built recipe with all its ranks on this machine, to its end; NeMo-Run calls this for `to_nemo_run`.

    Args:
        recipe: What to train.
        name: Name of the run; `None` means the recipe's.
        runs_dir: Folder of the run directory.

    Raises:
        SystemExit: The run failed or was cancelled; with its exit code, or 2 for a user error.
    """
    try:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise RunError(
                "one process starts all ranks of a machine: leave the launcher of NeMo-Run's executor out, "
                "or start the recipe with NemoRunExecutor"
            )
        with ends_told_by_command():  # the exit code tells NeMo-Run
            code = run(_as_config(recipe), name=name, runs_dir=runs_dir).wait()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_MISTAKE
    if code:
        raise SystemExit(code)


def _as_config(node: ConfigNode) -> DraftNode:
    cls: Any = type(node)
    values = {name: getattr(node, name) for name in field_types(cls)}
    return config(cls, **{name: _as_config(v) if isinstance(v, ConfigNode) else v for name, v in values.items()})
