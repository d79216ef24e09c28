"""Runs all processes of a job in one container of a Docker engine, as the user who starts the run."""

import dataclasses
import os
import shlex
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from executors.base import Job, SupervisorEntry
from executors.docker.container import Container, container_name, container_of
from executors.docker.engine import (
    connect,
    engine_errors,
    inspect_container,
    outcome_of,
    pull_missing,
    refusals,
    signal_container,
)
from executors.docker.leftovers import remove_leftovers
from executors.docker.mounts import parse_mount
from executors.docker.settings import DockerSettings
from executors.docker.start import probe, start_watch
from executors.process.gpu import local_gpu_type
from executors.process.surroundings import launcher_of
from executors.script import run_directory_script
from neva_recipes.config import PlainTable, RunError, config_dataclass, path_is
from neva_recipes.plan import Layout
from neva_recipes.run_directory.exit_codes import STOP_SIGNAL
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.state import State
from neva_recipes.secrets import is_secret, secret_in
from neva_recipes.table import folded_command

__all__ = ["DockerExecutor"]

_ROOT = "0:0"


@config_dataclass
class DockerExecutor(DockerSettings):
    """One container with all processes of the job, on the machine of a Docker engine."""

    kind: ClassVar[str] = "docker"
    takes_stop: ClassVar[bool] = True
    answer_seconds: ClassVar[float] = 0.5
    supervisor_entries: ClassVar[Mapping[str, type]] = MappingProxyType(
        {"container": str, "docker_host": str, "hostname": str}
    )

    @property
    def _owner(self) -> tuple[int, int] | None:
        """User id and group id of the new owner of the run directory, which only root can change; `None` to keep it."""
        user, group = map(int, self.user_and_group.split(":"))
        return None if (user, group) == (os.geteuid(), os.getegid()) or os.geteuid() != 0 else (user, group)

    def check(self, layout: Layout) -> None:
        """Raise `RunError` if the job needs several nodes, or a field has an impossible value."""
        if layout.num_nodes != 1:
            raise RunError(
                f"trainer.num_nodes={layout.num_nodes}: the docker executor runs on one machine; "
                "set trainer.num_nodes=1 or take an executor of a cluster"
            )
        if self.image is None:
            raise RunError("executor.image is not set: add executor.image=NAME, the image to run in")
        for mount in self.mounts:
            parse_mount(mount).bind(Path.cwd())
        if kind := secret_in(self.address):
            raise RunError(f"DOCKER_HOST: holds {kind}, and the address of the engine is written down for each run")
        # In a rootless engine 0:0 is the user who runs it: `require_ready` asks the engine.
        if os.geteuid() != 0 and self.user_and_group not in (_ROOT, f"{os.geteuid()}:{os.getegid()}"):
            raise self._wrong_user()
        if self.mount_code and sys.prefix == sys.base_prefix:
            raise RunError("executor.mount_code: this Python is in no virtual environment that could be mounted")
        for name in self.pass_env:
            if launcher := launcher_of(name):
                raise RunError(
                    f"executor.pass_env: by {name} {launcher} tells its own processes of their place: leave it out"
                )
            if name not in os.environ:
                raise RunError(f"executor.pass_env: {name} is not set in the environment: set it, or leave it out")

    def _wrong_user(self) -> RunError:
        return RunError(
            f"executor.user={self.user}: only root can run as others than itself, for files belong to who makes "
            f"them: leave it out, and it is {os.geteuid()}:{os.getegid()}"
        )

    def require_ready(self, job: Job) -> None:
        """Check with a trial container whether the job can run.

        Raises:
            RunError: The engine cannot be reached, the image is missing, or the container lacks something.
        """
        client = connect(self.address)
        container = self._container(_with_what_is_here(job))
        assert self.image is not None  # `check` has refused `None`
        with refusals(self.address, self.image):
            self._require_able(client.info())
            remove_leftovers(client)
            if self.pull:
                pull_missing(client, self.image)
            probe(client, container, job.run_dir)

    def _require_able(self, engine: Mapping[str, Any]) -> None:
        """Raise `RunError` if an engine, given its `info`, would create files of another owner or ignore a limit."""
        rootless = "name=rootless" in (engine.get("SecurityOptions") or ())
        if rootless and self.user_and_group != _ROOT:
            raise RunError(
                f"executor.user: the Docker engine at {self.address} runs as a user (rootless), whose files belong to "
                f"{_ROOT} in its containers: set executor.user={_ROOT}"
            )
        if not rootless and self.user_and_group == _ROOT and os.geteuid() != 0:
            raise self._wrong_user()
        for limit, ability in (("memory", "MemoryLimit"), ("cpus", "CpuCfsQuota")):
            if getattr(self, limit) is not None and engine.get(ability) is False:
                raise RunError(f"executor.{limit}: the Docker engine at {self.address} cannot limit it: leave it out")

    def gpu_type(self) -> str | None:
        """Return the type of this machine's GPUs if the engine is local and the driver names one in the table."""
        return local_gpu_type() if self.gpus is not None and self.address.startswith("unix://") else None

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env` and the variables of `pass_env` with defaults for unbuffered output, home, user and threads.

        A user without an entry in the image's /etc/passwd would have the home folder `/` and no name.
        """
        cores = self.cpus or len(os.sched_getaffinity(0))
        defaults = {
            "HOME": "/tmp",
            "OMP_NUM_THREADS": str(max(1, int(cores) // layout.processes_per_node)),
            "PYTHONUNBUFFERED": "1",
            "USER": "user",
        }
        return defaults | {name: os.environ[name] for name in self.pass_env if name in os.environ} | self.env

    def script(self, job: Job) -> str:
        """Return a shell script that writes the run directory if it is missing and runs the job in a container."""
        container = self._container(job)
        *command, run_dir = container.command_line()
        assert run_dir == str(job.run_dir)
        before = [] if self._owner is None else [f'chown -R {self.user_and_group} "$run"']
        # The shell's environment provides only the secrets among the variables on standard input.
        told = {name: value for name, value in container.secrets.items() if not is_secret(name, value)}
        before += [f"{name}={shlex.quote(value)}" for name, value in told.items()]
        return run_directory_script(job, tuple(command), standard_input=tuple(container.secrets), before=tuple(before))

    def in_short(self, job: Job) -> tuple[str, str]:
        """Return the `docker run` command."""
        return "Command of the container", folded_command(map(shlex.quote, self._container(job).command_line()))

    def start(self, job: Job, *, lock: int, lifeline: int | None) -> None:
        """Start the process that watches the container, and return once the run has started.

        Raises:
            RunError: The container could not be started.
        """
        start_watch(
            job.run_dir,
            self.address,
            self._container(_with_what_is_here(job)),
            self._owner,
            lock=lock,
            lifeline=lifeline,
        )

    def _container(self, job: Job) -> Container:
        name = container_name(job.run_dir)
        entry = {"container": name, "docker_host": self.address, "hostname": socket.gethostname()}
        return container_of(job, self, entry)

    @classmethod
    def is_alive(cls, supervisor: SupervisorEntry) -> bool | None:
        """Return whether the container still runs; `None` if its engine cannot be reached."""
        inspected = _ask(supervisor)
        return inspected if inspected is None else bool(inspected and inspected["State"]["Running"])

    @classmethod
    def outcome(cls, run_dir: Path, supervisor: SupervisorEntry) -> State | None:
        """Return how the container ended; `None` if it runs or is gone, or its engine cannot be reached."""
        inspected = _ask(supervisor)
        return outcome_of(inspected) if inspected else None

    @classmethod
    def place(cls, supervisor: SupervisorEntry) -> str | None:
        """Return the name of the container, which exists as long as the run lives."""
        name = supervisor.get("container")
        return name and f"container {name}"

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: SupervisorEntry, *, force: bool) -> None:
        """Ask the first process of the container to stop the run; with `force` it kills the ranks without grace.

        Raises:
            RunError: The engine cannot be reached, or refuses.
        """
        _send(run_dir, supervisor, signal.SIGQUIT if force else signal.SIGTERM)

    @classmethod
    def request_stop(cls, run_dir: Path, supervisor: SupervisorEntry) -> None:
        """Make the first process of the container ask the ranks to save and end, and return at once.

        Raises:
            RunError: The engine cannot be reached, or refuses.
        """
        _send(run_dir, supervisor, STOP_SIGNAL)


def _with_what_is_here(job: Job) -> Job:
    """Return a job that reads no paths that are missing: an engine refuses them, and stages may not have run yet."""
    return dataclasses.replace(job, reads=tuple(path for path in job.reads if path_is(path)))


def _send(run_dir: Path, supervisor: SupervisorEntry, number: signal.Signals) -> None:
    """Send a signal to the first process of a container unless the container has ended."""
    if _is_elsewhere(supervisor):
        raise RunError(f"run {run_title(run_dir)} runs on {supervisor['hostname']}: cancel it there")
    address, name = supervisor["docker_host"], supervisor["container"]
    client = connect(address)
    with refusals(address, name):
        signal_container(client, name, number.name)


def _is_elsewhere(supervisor: SupervisorEntry) -> bool:
    """Return whether the engine of a run listens on a socket of another machine."""
    address: str = supervisor["docker_host"]
    machine: str = supervisor["hostname"]
    return address.startswith("unix://") and machine != socket.gethostname()


def _ask(supervisor: SupervisorEntry) -> PlainTable | None:
    """Return what the engine knows of a container, empty if it has none; `None` if the engine cannot be reached."""
    if _is_elsewhere(supervisor):
        return None
    try:
        client = connect(supervisor["docker_host"])
        return inspect_container(client, supervisor["container"]) or {}
    except RunError:
        return None
    except engine_errors():
        return None
