"""The fields of the Docker executor and their checks."""

import os
import sys
from dataclasses import field
from typing import Annotated

from executors.base import Executor
from executors.docker.engine import engine_address
from executors.docker.mounts import parse_mount
from neva_recipes.config import Matches, PathOn, Positive, PositiveFloat, Range, RunError, TherePath, config_dataclass

__all__ = ["DockerSettings"]

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


@config_dataclass
class DockerSettings(Executor):
    """What the container of a run is to be.

    Raises:
        RunError: Fields do not go together.
    """

    image: Annotated[str, Matches(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", "the name of an image")] | None = None
    """Image to run in, such as neva-recipes:latest; it must be there, unless pull is set."""
    pull: bool = False
    """Fetch the image from its registry if it is not there."""
    python: TherePath | None = None
    """Python of the image; None means python, or with mount_code the one that starts the run."""
    mount_code: bool = False
    """Take this project and all it needs from the virtual environment here, read-only, not from the image."""
    mounts: list[Annotated[str, PathOn("both", "SOURCE:TARGET[:ro,z,Z]")]] = field(default_factory=list)
    """More files, folders and volumes, each SOURCE:TARGET[:ro,z,Z]; what the recipe names is there
    by itself."""
    gpus: Positive | _Gpus | None = "auto"
    """GPUs: all, a number, device=0,2, CDI names (nvidia.com/gpu=0), or none; auto takes one per process unless
    trainer.accelerator=cpu."""
    user: Annotated[str, Matches(r"\d+(:\d+)?", "numbers of user and group, such as 1000:1000")] | None = None
    """User and group in the container, by number; None means those who start the run. Others are for root alone, and
    0:0 for engines that run as a user."""
    network: Annotated[str, Matches(r"[A-Za-z0-9][\w.:-]*", "the name of a network")] | None = None
    """Network of the container, such as none or host; None means the engine's default."""
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
    """Address of the engine, such as unix:///run/docker.sock; None means DOCKER_HOST, or where engines listen."""
    grace_seconds: Annotated[float, Range(minimum=0, maximum=3600)] = 10.0
    """Seconds between asking the ranks to stop (SIGTERM) and killing them (SIGKILL)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        places: dict[str, str] = {}
        for mount in self.mounts:
            target = parse_mount(mount).target
            if target in places:
                raise RunError(
                    f"executor.mounts: {mount!r}: {places[target]!r} is at {target} already: leave one of them out"
                )
            places[target] = mount
        for limit in self.ulimits:
            soft, _, hard = limit.partition("=")[2].partition(":")
            if hard and int(hard) != -1 and not -1 < int(soft) <= int(hard):
                raise RunError(f"executor.ulimits: {limit}: the first number is more than the second, its bound")

    @property
    def address(self) -> str:
        """Address of the engine."""
        return engine_address(self.docker_host)

    @property
    def program(self) -> str:
        """The Python in the container."""
        return self.python or (sys.executable if self.mount_code else "python")

    @property
    def user_and_group(self) -> str:
        """User id and group id in the container; without a group id, it equals the user id."""
        user = self.user or f"{os.geteuid()}:{os.getegid()}"
        return user if ":" in user else f"{user}:{user}"
