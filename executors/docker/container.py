"""The definition of a run's container, for the engine's API and as a command line."""

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from executors.base import Job
from executors.docker.mounts import Bind, parse_mount
from executors.docker.settings import DockerSettings
from neva_recipes.config import PlainTable, RunError, input_paths, recipe_from_yaml
from neva_recipes.secrets import is_secret

__all__ = [
    "DIRECTORY_LABEL",
    "HOST_LABEL",
    "TRIAL_LABEL",
    "Container",
    "bytes_of",
    "container_name",
    "container_of",
]

NAME_LABEL = "nemo-run.name"
DIRECTORY_LABEL = "nemo-run.directory"
HOST_LABEL = "nemo-run.host"
TRIAL_LABEL = "nemo-run.trial"

_OUR_PACKAGES = ("executors", "neva_model", "neva_recipes")

_STOP_MARGIN_SECONDS = 20
"""Seconds beyond the grace of the ranks that a run may need to write its final state."""

_OWN_FOLDERS = ("/", "/tmp")
"""Folders that a container needs for itself, whatever files of this machine lie in them: its root and its `HOME`."""

_GPU_ULIMITS = ("memlock=-1", "stack=67108864")
"""Limits that NVIDIA's containers require (release notes): unlimited pinned memory and a stack of 64 MiB."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """The definition of a container.

    Attributes:
        name: Its name, unique within the engine.
        image: Its image.
        program: The program, which replaces the entrypoint of the image.
        arguments: Arguments of the program.
        binds: Files and folders of this machine, and volumes.
        environment: Variables that everybody with access to the engine can see.
        secrets: Variables that are written to its standard input, which the engine does not store.
        labels: Labels by which it is found.
        user: User id and group id.
        working_dir: Working directory.
        gpus: As `docker run --gpus` takes it, or CDI names as `--device` takes them; `None` for no GPU.
        executor: The executor, which holds the limits.
    """

    name: str
    image: str
    program: str
    arguments: tuple[str, ...]
    binds: tuple[Bind, ...]
    environment: dict[str, str] = field(repr=False)
    secrets: dict[str, str] = field(repr=False)
    labels: dict[str, str]
    user: str
    working_dir: str
    gpus: str | None
    executor: DockerSettings

    @property
    def standard_input(self) -> bytes:
        """The secrets as the first process reads them: NAME=value with a NUL after each, and a NUL at the end."""
        entries = [f"{name}={value}\0" for name, value in self.secrets.items()]
        return ("".join(entries) + "\0").encode("utf-8", "surrogateescape") if entries else b""

    @property
    def _ulimits(self) -> list[str]:
        """Limits as `docker run --ulimit` takes them; limits of the user replace those for GPUs."""
        limits = [*(() if self.gpus is None else _GPU_ULIMITS), *self.executor.ulimits]
        return list({limit.partition("=")[0]: limit for limit in limits}.values())

    def api(self) -> PlainTable:
        """Return the request of the engine's API that creates the container (`POST /containers/create`)."""
        place = self.executor
        host = {
            "Mounts": [bind.api() for bind in self.binds if not bind.relabel],
            "Binds": [bind.words() for bind in self.binds if bind.relabel] or None,
            "ShmSize": bytes_of(place.shm_size),
            "NetworkMode": place.network,
            "Memory": place.memory and bytes_of(place.memory),
            "NanoCpus": None if place.cpus is None else round(place.cpus * 1e9),
            "Ulimits": [_ulimit(limit) for limit in self._ulimits],
            "DeviceRequests": None if self.gpus is None else [_device_request(self.gpus)],
            "Init": False,
            # Turns off the mapping of user ids in engines that remap them.
            "UsernsMode": "host",
            # Only for errors of the first process; ranks print to the run directory.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        }
        return {
            "Image": self.image,
            "Entrypoint": [self.program],
            "Cmd": list(self.arguments),
            "Env": [f"{name}={value}" for name, value in self.environment.items()],
            "Labels": self.labels,
            "User": self.user,
            "WorkingDir": self.working_dir,
            "OpenStdin": bool(self.secrets),
            "StdinOnce": bool(self.secrets),
            "StopSignal": "SIGTERM",
            "StopTimeout": stop_seconds(place),
            "HostConfig": {name: value for name, value in host.items() if value is not None},
        }

    def command_line(self) -> list[str]:
        """Return the `docker run` command that does the same in the foreground."""
        place = self.executor
        words = ["docker", *(["--host", place.docker_host] if place.docker_host else []), "run", "--rm", "--init=false"]
        words += [f"--pull={'missing' if place.pull else 'never'}", f"--name={self.name}", f"--user={self.user}"]
        words += ["--userns=host", f"--workdir={self.working_dir}"]
        words += ["--stop-signal=SIGTERM", f"--stop-timeout={stop_seconds(place)}"]
        words += [f"--label={name}={value}" for name, value in self.labels.items()]
        cdi = self.gpus.split(",") if self.gpus is not None and _is_cdi(self.gpus) else []
        words += [f"--device={name}" for name in cdi]
        limits = {
            "gpus": None if cdi else self.gpus and (f'"{self.gpus}"' if "," in self.gpus else self.gpus),
            "shm-size": place.shm_size,
            "network": place.network,
            "memory": place.memory,
            "cpus": None if place.cpus is None else f"{place.cpus:g}",
        }
        words += [f"--{name}={value}" for name, value in limits.items() if value is not None]
        words += [f"--ulimit={limit}" for limit in self._ulimits]
        words += [bind.argument() for bind in self.binds]
        words += [f"--env={name}={value}" for name, value in self.environment.items()]
        words += ["--interactive"] if self.secrets else []
        return [*words, f"--entrypoint={self.program}", self.image, *self.arguments]


def stop_seconds(executor: DockerSettings) -> int:
    """Return how many seconds the engine waits between stopping and killing a container."""
    return round(executor.grace_seconds) + _STOP_MARGIN_SECONDS


def container_name(run_dir: Path) -> str:
    """Return the name of the container of a run directory: readable, and unique to this directory."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", run_dir.name).strip("-.")[:80]
    digest = hashlib.sha256(str(run_dir).encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"nemo-run-{readable}-{digest}" if readable else f"nemo-run-{digest}"


def container_of(job: Job, executor: DockerSettings, entry: PlainTable) -> Container:
    """Return the container that runs a job.

    Args:
        job: The job.
        executor: Its executor.
        entry: The entry `supervisor` for state.json.

    Raises:
        RunError: A path cannot be passed to the engine.
        RecipeError: The recipe starts from a run whose own recipe cannot be read.
    """
    assert executor.image is not None  # `check` has refused `None`
    hidden = {name for name, value in job.env.items() if is_secret(name, value) or not _is_utf8(value)}
    start = json.dumps({"supervisor": entry, "interpreter": sys.executable})
    gpus = _gpus(job, executor)
    # If NVIDIA's runtime is the engine's default, it gives all GPUs to NVIDIA's images unless this is set.
    no_gpus = {"NVIDIA_VISIBLE_DEVICES": "void"} if gpus is None else {}
    container = Container(
        name=container_name(job.run_dir),
        image=executor.image,
        program=executor.program,
        arguments=("-P", "-m", "executors.docker.init", start, str(job.run_dir)),
        binds=(*_binds(job, executor), Bind(str(job.run_dir), str(job.run_dir), read_only=False)),
        environment=no_gpus | {name: value for name, value in job.env.items() if name not in hidden},
        secrets={name: value for name, value in job.env.items() if name in hidden},
        labels={NAME_LABEL: job.name, DIRECTORY_LABEL: str(job.run_dir), HOST_LABEL: entry["hostname"]},
        user=executor.user_and_group,
        # The current folder of the command does not exist in the container.
        working_dir=str(job.run_dir),
        gpus=gpus,
        executor=executor,
    )
    for text in (job.name, *(path for bind in container.binds for path in (bind.source, bind.target))):
        if not _is_utf8(text):
            raise RunError(f"{text!a}: holds bytes that are not UTF-8, which cannot be told to the Docker engine")
    return container


def _binds(job: Job, executor: DockerSettings) -> Iterable[Bind]:
    """Return the binds apart from the run directory, with one per target path."""
    own = [] if job.recipe_yaml is None else input_paths(recipe_from_yaml(job.recipe_yaml))
    code = _code_paths() if executor.mount_code else []
    binds = {str(path): Bind(str(path), str(path), read_only=True) for path in (*own, *job.reads, *code)}
    binds = {path: bind for path, bind in binds.items() if path not in _OWN_FOLDERS}
    binds |= {bind.target: bind for bind in (parse_mount(mount).bind(job.cwd) for mount in executor.mounts)}
    binds.pop(str(job.run_dir), None)
    return binds.values()


def _code_paths() -> list[Path]:
    """Return the folders with the code of a job: the virtual environment, and this project's packages outside of it."""
    prefix = Path(sys.prefix)
    found = [prefix]
    for name in _OUR_PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations if spec is not None else None) or ():
            if not Path(place).is_relative_to(prefix):
                found.append(Path(place))
    return found


def _gpus(job: Job, executor: DockerSettings) -> str | None:
    if executor.gpus != "auto":
        return None if executor.gpus is None else str(executor.gpus)
    if not job.on_gpu if job.plan is None else job.plan.recipe.trainer.accelerator == "cpu":
        return None
    return str(job.layout.processes_per_node)


def _device_request(gpus: str) -> PlainTable:
    """Return the device request that `--gpus`, or `--device` with CDI names, would make."""
    if _is_cdi(gpus):
        return {"Driver": "cdi", "DeviceIDs": gpus.split(",")}
    if gpus.startswith("device="):
        wanted: PlainTable = {"DeviceIDs": gpus.removeprefix("device=").split(",")}
    else:
        wanted = {"Count": -1 if gpus == "all" else int(gpus)}
    return {**wanted, "Capabilities": [["gpu"]]}


def _is_cdi(gpus: str) -> bool:
    """Return whether GPUs are given as names of the Container Device Interface (CDI): vendor/class=name."""
    return "/" in gpus.partition("=")[0]


def bytes_of(size: str) -> int:
    """Return the bytes of a size with a unit as `docker run` reads it: g, G, gb and GiB all mean 2^30."""
    number, unit = re.split("(?=[a-z])", size.lower(), maxsplit=1)
    return int(float(number) * 1024 ** "bkmgtp".index(unit[0]))


def _ulimit(text: str) -> PlainTable:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
