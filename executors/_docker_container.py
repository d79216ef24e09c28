"""The container of a run: what it is made of, for the engine and as a command line."""

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neva_recipes.config import RunError, input_paths, recipe_from_yaml
from neva_recipes.secrets import is_secret

if TYPE_CHECKING:
    from executors.docker import DockerExecutor
    from executors.job import Job

__all__ = [
    "Bind",
    "Container",
    "DIRECTORY_LABEL",
    "HOST_LABEL",
    "TRIAL_LABEL",
    "container_name",
    "container_of",
    "parse_mount",
]

NAME_LABEL = "nemo-run.name"
DIRECTORY_LABEL = "nemo-run.directory"
HOST_LABEL = "nemo-run.host"
TRIAL_LABEL = "nemo-run.trial"

_OUR_PACKAGES = ("executors", "neva_model", "neva_recipes")

_STOP_MARGIN_SECONDS = 20
"""What a run may need beside the grace of its ranks before it has written how it ended."""

_GPU_ULIMITS = ("memlock=-1", "stack=67108864")
"""What NVIDIA's containers ask for: pinned memory without a limit, and a stack of 64 MiB (their release notes)."""


@dataclass(frozen=True)
class Bind:
    """A file or folder of this machine in a container."""

    source: str
    target: str
    read_only: bool

    def api(self) -> dict[str, Any]:
        """Return it as the engine takes it."""
        return {"Type": "bind", "Source": self.source, "Target": self.target, "ReadOnly": self.read_only}

    def argument(self) -> str:
        """Return it as `docker run --mount` takes it: a line of comma-separated values."""
        values = ["type=bind", f"source={self.source}", f"target={self.target}"]
        quoted = ['"' + value.replace('"', '""') + '"' if re.search('[",\r\n]', value) else value for value in values]
        return ",".join([*quoted, *(["readonly"] if self.read_only else [])])


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container to be.

    Attributes:
        name: Its name, which the engine gives to one at a time.
        image: What it starts from.
        program: The program, instead of what the image would start.
        arguments: Its arguments.
        binds: Files and folders of this machine.
        environment: Variables that anybody who may ask the engine can see.
        secrets: Variables that are written to its standard input, which the engine keeps nowhere.
        labels: What it is found by.
        user: Numbers of user and group.
        working_dir: Where it starts.
        gpus: As `docker run --gpus` takes it, or CDI names as `--device` does; none for no GPU.
        executor: Its limits.
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
    executor: "DockerExecutor"

    @property
    def standard_input(self) -> bytes:
        """The secrets as the first process reads them: NAME=value, a NUL after each, and one more at the end."""
        entries = [f"{name}={value}\0" for name, value in self.secrets.items()]
        return ("".join(entries) + "\0").encode("utf-8", "surrogateescape") if entries else b""

    @property
    def _ulimits(self) -> list[str]:
        """Limits as `docker run --ulimit` takes them, those of GPUs first; of two of one name the last counts."""
        limits = [*(() if self.gpus is None else _GPU_ULIMITS), *self.executor.ulimits]
        return list({limit.partition("=")[0]: limit for limit in limits}.values())

    def api(self) -> dict[str, Any]:
        """Return it as the engine's API takes it to create a container (`POST /containers/create`)."""
        place = self.executor
        host = {
            "Mounts": [bind.api() for bind in self.binds],
            "ShmSize": _bytes(place.shm_size),
            "NetworkMode": place.network,
            "Memory": place.memory and _bytes(place.memory),
            "NanoCpus": None if place.cpus is None else round(place.cpus * 1e9),
            "Ulimits": [_ulimit(limit) for limit in self._ulimits],
            "DeviceRequests": None if self.gpus is None else [_device_request(self.gpus)],
            "Init": False,
            # An engine that gives containers other users than those of this machine is told not to.
            "UsernsMode": "host",
            # What its first process has to say if it fails; ranks print to the run directory.
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
        """Return the `docker run` that does the same in the foreground."""
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
        words += [f"--mount={bind.argument()}" for bind in self.binds]
        words += [f"--env={name}={value}" for name, value in self.environment.items()]
        words += ["--interactive"] if self.secrets else []
        return [*words, f"--entrypoint={self.program}", self.image, *self.arguments]


def stop_seconds(executor: "DockerExecutor") -> int:
    """Return how long the engine is to wait before it kills a container that it was told to stop."""
    return round(executor.grace_seconds) + _STOP_MARGIN_SECONDS


def container_name(run_dir: Path) -> str:
    """Return the name of the container of a run directory: readable, and of this directory alone."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", run_dir.name).strip("-.")[:80]
    digest = hashlib.sha256(str(run_dir).encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"nemo-run-{readable}-{digest}" if readable else f"nemo-run-{digest}"


def container_of(job: "Job", executor: "DockerExecutor", entry: dict[str, Any]) -> Container:
    """Return the container that runs a job.

    Args:
        job: The job.
        executor: Where and how.
        entry: What state.json is to know the run by.

    Raises:
        RunError: A path cannot be told to the engine.
        RecipeError: A run the recipe starts from has a recipe that cannot be read.
    """
    assert executor.image is not None  # `check` has refused it
    hidden = {name for name, value in job.env.items() if is_secret(name, value) or not _is_utf8(value)}
    start = json.dumps({"supervisor": entry, "interpreter": sys.executable})
    gpus = _gpus(job, executor)
    # Where NVIDIA's runtime is the engine's default, it gives all GPUs to an image of NVIDIA's that does not say no.
    no_gpus = {"NVIDIA_VISIBLE_DEVICES": "void"} if gpus is None else {}
    container = Container(
        name=container_name(job.run_dir),
        image=executor.image,
        program=executor.program,
        arguments=("-P", "-m", "executors._docker_init", start, str(job.run_dir)),
        binds=(*_binds(job, executor), Bind(str(job.run_dir), str(job.run_dir), read_only=False)),
        environment=no_gpus | {name: value for name, value in job.env.items() if name not in hidden},
        secrets={name: value for name, value in job.env.items() if name in hidden},
        labels={NAME_LABEL: job.name, DIRECTORY_LABEL: str(job.run_dir), HOST_LABEL: entry["hostname"]},
        user=executor.user_and_group,
        # The folder the command was given in is not in the container.
        working_dir=str(job.run_dir),
        gpus=gpus,
        executor=executor,
    )
    for text in (job.name, *(path for bind in container.binds for path in (bind.source, bind.target))):
        if not _is_utf8(text):
            raise RunError(f"{text!a}: holds bytes that are not UTF-8, which cannot be told to the Docker engine")
    return container


def _binds(job: "Job", executor: "DockerExecutor") -> Iterable[Bind]:
    """Return what a container sees of this machine beside the run directory, each at one place once."""
    own = [] if job.recipe_yaml is None else input_paths(recipe_from_yaml(job.recipe_yaml))
    code = _code_paths() if executor.mount_code else []
    binds = {str(path): Bind(str(path), str(path), read_only=True) for path in (*own, *code)}
    binds |= {bind.target: bind for bind in (parse_mount(mount, job.cwd) for mount in executor.mounts)}
    binds.pop(str(job.run_dir), None)
    return binds.values()


def _code_paths() -> list[Path]:
    """Return where this Python finds what a job needs: its virtual environment, and our packages that lie outside."""
    prefix = Path(sys.prefix)
    found = [prefix]
    for name in _OUR_PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations if spec is not None else None) or ():
            if not Path(place).is_relative_to(prefix):
                found.append(Path(place))
    return found


def parse_mount(text: str, folder: Path) -> Bind:
    """Return what SOURCE:TARGET[:ro] stands for.

    Args:
        text: What was given.
        folder: Absolute path of the folder it was given in, from wherever the run is resumed.

    Raises:
        RunError: It is not of this form.
    """
    rest, read_only = (text[:-3], True) if text.endswith(":ro") else (text.removesuffix(":rw"), False)
    source, separator, target = rest.rpartition(":/")
    if not separator or not source or not target:
        raise RunError(f"executor.mounts: {text!r}: expected SOURCE:TARGET[:ro], the target an absolute path")
    # Such a word is a slip, not the end of a target: that is written with :rw or :ro behind it.
    if rest == text and (option := re.search(r":([A-Za-z,]+)$", target)) is not None:
        raise RunError(f"executor.mounts: {text!r}: {option[1]!r} is no way to mount: expected SOURCE:TARGET[:ro]")
    try:
        return Bind(str(folder / Path(source).expanduser()), f"/{target}", read_only)
    except RuntimeError:
        raise RunError(f"executor.mounts: {text!r}: there is no such user as the one of {source!r}") from None


def _gpus(job: "Job", executor: "DockerExecutor") -> str | None:
    if executor.gpus != "auto":
        return None if executor.gpus is None else str(executor.gpus)
    if job.plan is None or job.plan.recipe.trainer.accelerator == "cpu":
        return None
    return str(job.layout.processes_per_node)


def _device_request(gpus: str) -> dict[str, Any]:
    """Return what `--gpus`, or `--device` with CDI names, would ask the engine for."""
    if _is_cdi(gpus):
        return {"Driver": "cdi", "DeviceIDs": gpus.split(",")}
    if gpus.startswith("device="):
        wanted: dict[str, Any] = {"DeviceIDs": gpus.removeprefix("device=").split(",")}
    else:
        wanted = {"Count": -1 if gpus == "all" else int(gpus)}
    return {**wanted, "Capabilities": [["gpu"]]}


def _is_cdi(gpus: str) -> bool:
    """Return whether GPUs are named as in the specifications of the Container Device Interface: vendor/class=name."""
    return "/" in gpus.partition("=")[0]


def _bytes(size: str) -> int:
    """Return what a size with its unit stands for, as `docker run` reads it: g, G, gb and GiB are one unit, of 2^30."""
    number, unit = re.split("(?=[a-z])", size.lower(), maxsplit=1)
    return int(float(number) * 1024 ** "bkmgtp".index(unit[0]))


def _ulimit(text: str) -> dict[str, Any]:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
