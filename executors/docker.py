"""Runs a job in a container of a Docker engine: all its processes in one, as the user who starts it."""

import os
import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from executors._docker_container import Container, container_name, container_of, parse_mount
from executors._docker_engine import (
    connect,
    engine_address,
    engine_errors,
    inspect_container,
    outcome_of,
    pull_missing,
    refusals,
    signal_container,
)
from executors._docker_leftovers import remove_leftovers
from executors._docker_start import probe, start_watch
from executors._gpu import local_gpu_type
from executors._script import run_directory_script
from executors.base import Executor
from neva_recipes.config import Matches, Positive, PositiveFloat, Range, RunError
from neva_recipes.plan import Layout
from neva_recipes.secrets import is_secret, secret_in

if TYPE_CHECKING:
    from executors._state import State
    from executors.job import Job

__all__ = ["DockerExecutor"]

_ROOT = "0:0"

_Size = Annotated[
    str, Matches(r"(?i:(?=[\d.]*[1-9])\d+(\.\d+)?([kmgtp](i?b)?|b))", "a size with its unit, such as 16g")
]
_CDI_NAME = r"[a-z][\w.-]*/[a-z][\w-]*=[\w.:-]+"
_Gpus = Annotated[
    str,
    Matches(
        rf"auto|all|device=[\w.:/-]+(,[\w.:/-]+)*|{_CDI_NAME}(,{_CDI_NAME})*",
        "auto, all, a number, device=ID,ID,..., or nvidia.com/gpu=ID,nvidia.com/gpu=ID,...",
    ),
]


@dataclass(frozen=True, kw_only=True)
class DockerExecutor(Executor):
    """One container with all processes of the job, on the machine of a Docker engine."""

    kind: ClassVar[str] = "docker"
    answer_seconds: ClassVar[float] = 0.5
    supervisor_entries: ClassVar[Mapping[str, type]] = MappingProxyType(
        {"container": str, "docker_host": str, "hostname": str}
    )

    image: Annotated[str, Matches(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", "the name of an image")] | None = None
    """Image to run in, such as neva-recipes:latest; it must be there, unless pull is set."""
    pull: bool = False
    """Fetch the image from its registry if it is not there."""
    python: str | None = None
    """Python of the image; none means python, or with mount_code the one that starts the run."""
    mount_code: bool = False
    """Take this project and all it needs from the virtual environment here, read-only, not from the image."""
    mounts: list[str] = field(default_factory=list)
    """More files and folders, each SOURCE:TARGET or SOURCE:TARGET:ro; what the recipe names is there by itself."""
    gpus: Positive | _Gpus | None = "auto"
    """GPUs: all, a number, device=0,2, CDI names (nvidia.com/gpu=0), or none; auto takes one per process unless
    trainer.accelerator=cpu."""
    user: Annotated[str, Matches(r"\d+(:\d+)?", "numbers of user and group, such as 1000:1000")] | None = None
    """User and group in the container, by number; none means those who start the run. Others are for root alone, and
    0:0 for engines that run as a user."""
    network: Annotated[str, Matches(r"[A-Za-z0-9][\w.:-]*", "the name of a network")] | None = None
    """Network of the container, such as none or host; none means the engine's default."""
    shm_size: _Size = "16g"
    """Limit of /dev/shm, which batches of data-loader workers go through."""
    memory: _Size | None = None
    """Limit of memory, /dev/shm included."""
    cpus: PositiveFloat | None = None
    """Limit of processor time, in cores."""
    ulimits: list[Annotated[str, Matches(r"[a-z]+=-?\d+(:-?\d+)?", "NAME=SOFT or NAME=SOFT:HARD")]] = field(
        default_factory=list
    )
    """Limits of each process, such as nofile=65536; with GPUs memlock=-1 and stack=67108864, unless you set them."""
    pass_env: list[Annotated[str, Matches(r"[A-Za-z_][A-Za-z0-9_]*", "a name of letters, digits and underscores")]] = (
        field(default_factory=list)
    )
    """Names of variables that are passed on from the environment of the command; nothing else of it gets in."""
    docker_host: str | None = None
    """Address of the engine, such as unix:///run/docker.sock; none means DOCKER_HOST, or where engines listen."""
    grace_seconds: Annotated[float, Range(minimum=0, maximum=3600)] = 10.0
    """Seconds between asking the ranks to stop (SIGTERM) and killing them (SIGKILL)."""

    @property
    def address(self) -> str:
        """Where the engine is."""
        return engine_address(self.docker_host)

    @property
    def program(self) -> str:
        """The Python in the container."""
        return self.python or (sys.executable if self.mount_code else "python")

    @property
    def user_and_group(self) -> str:
        """Numbers of user and group in the container; a user alone has the group of that number."""
        user = self.user or f"{os.geteuid()}:{os.getegid()}"
        return user if ":" in user else f"{user}:{user}"

    @property
    def _owner(self) -> tuple[int, int] | None:
        """Whom the run directory is to be given to, which root alone can do; none if it is theirs already."""
        user, group = map(int, self.user_and_group.split(":"))
        return None if (user, group) == (os.geteuid(), os.getegid()) or os.geteuid() != 0 else (user, group)

    def check(self, layout: Layout) -> None:
        """Raise `RunError` if the job is not for one machine, or the fields ask for what cannot be."""
        if layout.num_nodes != 1:
            raise RunError(
                f"trainer.num_nodes={layout.num_nodes}: the docker executor runs on one machine; "
                "set trainer.num_nodes=1 or take an executor of a cluster"
            )
        if self.image is None:
            raise RunError("executor.image is not set: add executor.image=NAME, the image to run in")
        places: dict[str, str] = {}
        for mount in self.mounts:
            target = parse_mount(mount, Path.cwd()).target
            if target in places:
                raise RunError(
                    f"executor.mounts: {mount!r}: {places[target]!r} is at {target} already: leave one of them out"
                )
            places[target] = mount
        for limit in self.ulimits:
            soft, _, hard = limit.partition("=")[2].partition(":")
            if hard and int(hard) != -1 and not -1 < int(soft) <= int(hard):
                raise RunError(f"executor.ulimits: {limit}: the first number is more than the second, its bound")
        if kind := secret_in(self.address):
            raise RunError(f"DOCKER_HOST: holds {kind}, and the address of the engine is written down for each run")
        # Of an engine that runs as a user, 0:0 is that user: `require_ready` asks it.
        if os.geteuid() != 0 and self.user_and_group not in (_ROOT, f"{os.geteuid()}:{os.getegid()}"):
            raise self._wrong_user()
        if self.mount_code and sys.prefix == sys.base_prefix:
            raise RunError("executor.mount_code: this Python is in no virtual environment that could be mounted")
        for name in self.pass_env:
            if name not in os.environ:
                raise RunError(f"executor.pass_env: {name} is not set in the environment: set it, or leave it out")

    def _wrong_user(self) -> RunError:
        return RunError(
            f"executor.user={self.user}: only root can run as others than itself, for files belong to who makes "
            f"them: leave it out, and it is {os.geteuid()}:{os.getegid()}"
        )

    def require_ready(self, job: "Job") -> None:
        """Start a container like the job's and see whether it can do the job; then remove it.

        Raises:
            RunError: The engine cannot be asked, the image is not there, or the container lacks something.
        """
        client = connect(self.address)
        container = self._container(job)
        assert self.image is not None  # `check` has refused it
        with refusals(self.address, self.image):
            self._require_able(client.info())
            remove_leftovers(client)
            if self.pull:
                pull_missing(client, self.image)
            probe(client, container, job.run_dir)

    def _require_able(self, engine: Mapping[str, Any]) -> None:
        """Raise `RunError` if an engine, by what it says of itself, would make files of others or ignore a limit."""
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
        """Return the type of this machine's GPUs, if the engine is here and the driver names one in the table."""
        return local_gpu_type() if self.gpus is not None and self.address.startswith("unix://") else None

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env` and what `pass_env` names, with unbuffered output, a home to write to and a share of the cores.

        A user without an entry in the image's list of users has the home folder `/`, and no name.
        """
        cores = self.cpus or len(os.sched_getaffinity(0))
        defaults = {
            "HOME": "/tmp",
            "OMP_NUM_THREADS": str(max(1, int(cores) // layout.processes_per_node)),
            "PYTHONUNBUFFERED": "1",
            "USER": "user",
        }
        return defaults | {name: os.environ[name] for name in self.pass_env if name in os.environ} | self.env

    def script(self, job: "Job") -> str:
        """Return shell text that writes the run directory where it is missing, and runs the job in a container."""
        container = self._container(job)
        *command, run_dir = container.command_line()
        assert run_dir == str(job.run_dir)
        before = [] if self._owner is None else [f'chown -R {self.user_and_group} "$run"']
        # Of what comes on standard input, only secrets are the shell's to have.
        told = {name: value for name, value in container.secrets.items() if not is_secret(name, value)}
        before += [f"{name}={shlex.quote(value)}" for name, value in told.items()]
        return run_directory_script(job, tuple(command), standard_input=tuple(container.secrets), before=tuple(before))

    def start(self, job: "Job", *, lock: int, lifeline: int | None) -> None:
        """Start what stays with the container, and return once the run runs.

        Raises:
            RunError: The container could not be started.
        """
        start_watch(job.run_dir, self.address, self._container(job), self._owner, lock=lock, lifeline=lifeline)

    def _container(self, job: "Job") -> Container:
        name = container_name(job.run_dir)
        entry = {"container": name, "docker_host": self.address, "hostname": socket.gethostname()}
        return container_of(job, self, entry)

    @classmethod
    def is_alive(cls, supervisor: Mapping[str, Any]) -> bool | None:
        """Return whether the container still runs; none if its engine cannot be asked."""
        inspected = _ask(supervisor)
        return inspected if inspected is None else bool(inspected and inspected["State"]["Running"])

    @classmethod
    def outcome(cls, run_dir: Path, supervisor: Mapping[str, Any]) -> "State | None":
        """Return how the container ended; none if it runs, is gone, or its engine cannot be asked."""
        inspected = _ask(supervisor)
        return outcome_of(inspected) if inspected else None

    @classmethod
    def place(cls, supervisor: Mapping[str, Any]) -> str | None:
        """Return the name of the container, which is there as long as the run lives."""
        name = supervisor.get("container")
        return name and f"container {name}"

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: Mapping[str, Any], *, force: bool) -> None:
        """Ask the first process of the container to stop the run; with `force` it kills the ranks without grace.

        Raises:
            RunError: The engine cannot be asked, or refuses.
        """
        if _is_elsewhere(supervisor):
            raise RunError(f"run {run_dir.name} runs on {supervisor['hostname']}: cancel it there")
        address, name = supervisor["docker_host"], supervisor["container"]
        client = connect(address)
        with refusals(address, name):
            signal_container(client, name, "SIGQUIT" if force else "SIGTERM")


def _is_elsewhere(supervisor: Mapping[str, Any]) -> bool:
    """Return whether a run's engine listens on a socket of another machine."""
    return supervisor["docker_host"].startswith("unix://") and supervisor["hostname"] != socket.gethostname()


def _ask(supervisor: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the engine knows of a container, which is nothing if there is none; none if it cannot be asked."""
    if _is_elsewhere(supervisor):
        return None
    try:
        client = connect(supervisor["docker_host"])
        return inspect_container(client, supervisor["container"]) or {}
    except RunError:
        return None
    except engine_errors():
        return None
