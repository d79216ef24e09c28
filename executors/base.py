"""The contract between a job and the place it runs in."""

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from neva_recipes.config import ConfigNode, Environment, Matches, RunError
from neva_recipes.plan import Layout
from neva_recipes.secrets import is_secret, secret_in, secret_names

if TYPE_CHECKING:
    from executors._state import State
    from executors.job import Job

__all__ = ["RANK_VARIABLES", "Executor", "RefusedError"]

RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""What every executor sets for every process."""


class RefusedError(RunError):
    """The place does not take a job as it is asked for, and nothing of it has been started."""


@dataclass(frozen=True, kw_only=True)
class Executor(ConfigNode, ABC):
    """Starts, watches and stops the processes of a job; a subclass is a frozen dataclass of plain fields.

    Fields are checked by their annotations, as those of a recipe are, and a docstring under each says what it is for.
    A subclass names itself with `kind` and implements the abstract methods; docs/executors.md describes what each owes
    to the others.

    Raises:
        RecipeError: A field holds what its annotation does not allow; the message starts with `executor.FIELD`.
        RunError: A variable of `env` is the executor's own to set, or holds a secret that its name does not tell of.
    """

    root = "executor"

    kind: ClassVar[str]
    """Name of the executor in job.json and on the command line."""

    answer_seconds: ClassVar[float] = 0.0
    """How long one that waits for a run goes by an answer of `is_alive` and `outcome` before it asks again."""

    outlives_command: ClassVar[bool] = False
    """Whether a run goes on when the command that shows it is gone; Ctrl-C cancels it all the same."""

    supervisor_entries: ClassVar[Mapping[str, type | Matches]] = MappingProxyType({})
    """What the entry of a run in state.json holds at least, by name; a run of which it does not is `lost`."""

    env: Environment = field(default_factory=dict, repr=False)
    """Environment variables for every process; secret values are passed on but written nowhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in self.env.items():
            if name in RANK_VARIABLES:
                raise RunError(f"executor.env: {name} is set by the executor itself: leave it out")
            if not is_secret(name, value) and (kind := secret_in(value, os.environ)):
                raise RunError(
                    f"executor.env.{name}: holds {kind}, and a variable of this name is written to files: "
                    f"pass it on under a name that says it is secret, such as {name}_TOKEN"
                )

    @abstractmethod
    def check(self, layout: Layout) -> None:
        """Raise `RunError` if this executor cannot give a job of this layout what it needs."""

    def require_ready(self, job: "Job") -> None:
        """Raise `RunError` if the job cannot be started there as things stand; called before anything is written.

        Not called for a dry run: what it asks may take seconds, and may be out of reach from here.
        """
        return None

    def gpu_type(self) -> str | None:
        """Return the type of its GPUs, by its name in `neva_recipes.plan.gpus`; none if that is not known."""
        return None

    @abstractmethod
    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return the variables set for every process beside those of its rank: `env`, and the executor's defaults."""

    @abstractmethod
    def script(self, job: "Job") -> str:
        """Return shell text that starts the job when pasted into a shell."""

    @abstractmethod
    def start(self, job: "Job", *, lock: int, lifeline: int | None) -> None:
        """Start the job of a run directory that has been written; return once it runs or has already ended.

        Args:
            job: What to start. Its state is `created`; from here on the executor's side writes it.
            lock: Open file descriptor that holds the lock of the run directory; to be held as long as the run lives.
            lifeline: Readable file descriptor that comes to its end when the command in the foreground is gone, upon
                which the run is to be cancelled; none for a detached run.

        Raises:
            RefusedError: The place does not take it; of a first start the run directory is removed.
            RunError: The job could not be started.
        """

    @property
    def starts_together(self) -> bool:
        """Whether `start_together` is there to be used."""
        return False

    def start_together(self, jobs: "Sequence[Job]", folder: Path) -> None:
        """Start jobs of this executor that wait for nothing, as `start` does, by one submission.

        Args:
            jobs: The jobs; what each will be known by is in its state.json when this returns.
            folder: Where to put what they share.

        Raises:
            RefusedError: The place does not take them, and none has been started.
            RunError: They could not be started.
        """
        raise NotImplementedError

    def after(self, supervisors: Sequence[Mapping[str, Any]]) -> "Executor | None":
        """Return the executor that starts a job once other runs have succeeded, and gives it up if one has not.

        Args:
            supervisors: The entries of those runs in state.json; there can be none.

        Returns:
            None, the default, if the place cannot wait by itself.
        """
        return None

    @classmethod
    def asking_together(cls, supervisors: Sequence[Mapping[str, Any]]) -> AbstractContextManager[None] | None:
        """Return a context in which `is_alive` and `outcome` of several runs go by one question to the place.

        Args:
            supervisors: The entries of those runs in state.json.

        Returns:
            None, the default, if each has to be asked about by itself.
        """
        return None

    @classmethod
    @abstractmethod
    def is_alive(cls, supervisor: Mapping[str, Any]) -> bool | None:
        """Return whether what supervises a run still exists, from its entry in state.json; none if that is unknown."""

    @classmethod
    def outcome(cls, run_dir: Path, supervisor: Mapping[str, Any]) -> "State | None":
        """Return what the place says of a run whose state.json is not final; none, the default, if it says nothing.

        Asked when `is_alive` is false, and of a queued run. A final state (whose exit code may be left out) is written
        down by whoever asks; another one, such as `queued` with what the run waits for as its reason, is only shown.
        """
        return None

    @classmethod
    def place(cls, supervisor: Mapping[str, Any]) -> str | None:
        """Return what people find a run by in the place, such as "Slurm job 17"; none, the default, for nothing.

        The entry of a run that did not get as far as to be started is not this executor's.
        """
        return None

    @classmethod
    @abstractmethod
    def request_cancel(cls, run_dir: Path, supervisor: Mapping[str, Any], *, force: bool) -> None:
        """Ask for the end of a run and return at once; with `force`, its processes are given no time to end themselves.

        Raises:
            RunError: The request cannot be made from here.
        """

    @classmethod
    def request_cancel_together(
        cls, runs: Sequence[tuple[Path, Mapping[str, Any]]], *, force: bool
    ) -> dict[Path, RunError]:
        """Ask for the end of several runs, each as `request_cancel` does; by default one after the other.

        Args:
            runs: The directories of the runs, and their entries in state.json.
            force: As for `request_cancel`.

        Returns:
            Why the request cannot be made, of each of which it cannot.
        """
        refused = {}
        for run_dir, supervisor in runs:
            try:
                cls.request_cancel(run_dir, supervisor, force=force)
            except RunError as error:
                refused[run_dir] = error
        return refused

    def record(self) -> dict[str, Any]:
        """Return the executor as job.json holds it: every field, of secret variables the name alone."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values["env"] = {name: value for name, value in self.env.items() if not is_secret(name, value)}
        return {"kind": self.kind, **values, "secret_env": secret_names(self.env)}
