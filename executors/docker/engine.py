"""Requests to a Docker engine, and its refusals as one-line errors."""

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from executors.docker.contexts import address_of_context, certificates_of
from neva_recipes.config import PlainTable, RunError
from neva_recipes.run_directory.state import State
from neva_recipes.secrets import mask, secret_values

if TYPE_CHECKING:
    import docker

__all__ = [
    "connect",
    "engine_address",
    "engine_errors",
    "inspect_container",
    "outcome_of",
    "pull_missing",
    "refusals",
    "signal_container",
]

_DEFAULT_ADDRESS = "unix:///var/run/docker.sock"

_ANSWER_SECONDS = 60
"""Timeout of a request to the engine."""

_KILLED = 137
_NOT_THERE, _NOT_RUNNING = 404, 409

_REASONS = (
    (
        r"unresolvable CDI devices (?P<what>.*)",
        "executor.gpus: the engine has no device {what} (no such GPU, or no specification of it: nvidia-ctk cdi list)",
    ),
    (
        r"nvidia-container-cli(\.real)?: (?P<what>.*?)(: unknown)?\.?$",
        "executor.gpus: the NVIDIA Container Toolkit refuses them: {what}",
    ),
    (
        r"could not select (cdi )?device driver|nvidia-container-runtime",
        "executor.gpus: the engine has no runtime for GPUs (the NVIDIA Container Toolkit and a driver); "
        "executor.gpus=none goes without GPUs",
    ),
    (
        r"bind source path does not exist: (?P<what>.*)",
        "{what!r} is not there on the machine of the engine, and is to be mounted: see executor.mounts",
    ),
    (
        r"No such image|pull access denied|manifest unknown|registry|repository does not exist",
        "executor.image={image}: no such image here, and none is fetched unasked: build or pull it, or set "
        "executor.pull=true",
    ),
    (
        r'exec: "(?P<what>[^"]*)": .*(no such file|not found|permission denied)',
        "executor.image={image} has no program {what}: executor.python names its Python",
    ),
    (r"network (?P<what>.*) not found", "executor.network={what}: the engine has no such network"),
    (r"Range of CPUs is from (?P<what>\S+ to \S+),", "executor.cpus: expected {what} on the machine of the engine"),
    (r"(?P<what>Minimum memory limit allowed is \S+)", "executor.memory: {what}"),
    (r"no space left on device", "the disk of the Docker engine is full: {said}"),
    (
        r"error setting rlimit",
        "executor.ulimits: the engine has no right to raise a limit that far (with GPUs memlock=-1 is asked for): set "
        "one it may, such as executor.ulimits=memlock=65536",
    ),
    (r"container name .* is already in use", "its container is still there: the run is in use; cancel it first"),
)
"""Patterns of the engine's error messages, each with the message to show instead."""


def engine_address(docker_host: str | None) -> str:
    """Return the engine's address: the given one, else DOCKER_HOST, else that of the context in use, else the default.

    Raises:
        RunError: There is no such context.
    """
    return docker_host or os.environ.get("DOCKER_HOST") or address_of_context() or _DEFAULT_ADDRESS


@functools.lru_cache(maxsize=4)
def connect(address: str) -> "docker.DockerClient":
    """Return a client of the engine at an address such as `unix:///var/run/docker.sock`.

    Raises:
        RunError: The docker package is missing, or the engine cannot be reached.
    """
    try:
        import docker
    except ImportError:
        raise RunError(
            "the docker executor needs the Python package docker: pip install 'neva-recipes[docker]'"
        ) from None
    try:
        environment = {**os.environ, **certificates_of(address), "DOCKER_HOST": address}
        return docker.DockerClient.from_env(timeout=_ANSWER_SECONDS, environment=environment)
    except engine_errors() as error:
        raise RunError(_unreachable(address, error)) from None
    except ValueError as error:  # such as a port that is no number, or an unclosed bracket
        raise RunError(_unreachable(address, error)) from None


def engine_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that the client raises if the engine refuses or cannot be reached."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    return DockerException, RequestException, OSError


def _unreachable(address: str, error: Exception) -> str:
    where = f"Docker engine at {mask(address)}"
    causes = list(_causes(error))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return f"{where}: permission denied: only root and members of the group of its socket may ask it"
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return f"{where}: there is none; start it, or name another one by executor.docker_host or DOCKER_HOST"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes) or "refused" in str(error):
        return f"{where} does not answer: is it running? executor.docker_host or DOCKER_HOST names another one"
    return f"{where} cannot be asked: {_one_line(str(error))}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, which the client stores as `__cause__`, `__context__` and arguments."""
    yield error
    for inner in (*error.args, error.__cause__ or error.__context__):
        if isinstance(inner, BaseException):
            yield from _causes(inner)


@contextmanager
def refusals(address: str, image: str) -> Iterator[None]:
    """Turn the engine's exceptions in the context into a `RunError` of one line.

    Args:
        address: Address of the engine.
        image: Image of the container.
    """
    from docker.errors import APIError

    try:
        yield
    except engine_errors() as error:
        if not isinstance(error, APIError):
            raise RunError(_unreachable(address, error)) from None
        said = str(error.explanation or error)
        for pattern, meaning in _REASONS:
            if match := re.search(pattern, said, re.DOTALL):
                what = match.groupdict().get("what", "").strip()
                raise RunError(meaning.format(what=what, image=image, said=_one_line(said))) from None
        raise RunError(f"the Docker engine refuses the container: {_one_line(said)}") from None


def _one_line(text: str) -> str:
    return mask(" ".join(text.split()), secret_values(os.environ))[:500]


def inspect_container(client: "docker.DockerClient", name: str) -> PlainTable | None:
    """Return what the engine knows of a container; `None` if there is no such container.

    Raises:
        DockerException, RequestException, OSError: The engine cannot be reached.
    """
    from docker.errors import NotFound

    try:
        found: PlainTable = client.api.inspect_container(name)
    except NotFound:
        return None
    return found


def signal_container(client: "docker.DockerClient", name: str, signal: str) -> None:
    """Send a signal to the first process of a container unless the container has ended.

    Raises:
        DockerException, RequestException, OSError: The engine cannot be reached, or refuses.
    """
    from docker.errors import APIError

    try:
        client.api.kill(name, signal=signal)
    except APIError as error:
        if error.status_code not in (_NOT_THERE, _NOT_RUNNING):
            raise


def pull_missing(client: "docker.DockerClient", image: str) -> None:
    """Pull an image if the engine does not have it.

    Raises:
        RunError: It cannot be pulled.
        DockerException, RequestException, OSError: The engine cannot be reached.
    """
    from docker.errors import APIError, ImageNotFound

    try:
        client.images.get(image)
        return
    except ImageNotFound:
        pass
    try:
        client.api.timeout = None  # the pull of a layer may send nothing for a long time
        client.images.pull(image)
    except APIError as error:
        raise RunError(f"executor.image={image}: cannot be fetched: {_one_line(str(error.explanation))}") from None
    finally:
        client.api.timeout = _ANSWER_SECONDS


def outcome_of(inspected: PlainTable) -> State | None:
    """Return the final state of a run whose container ended before the run wrote one; `None` while it runs."""
    state = inspected["State"]
    if state["Running"] or state["Status"] == "created":
        return None
    code = int(state["ExitCode"]) or 1
    if state.get("OOMKilled"):
        reason = "its container was killed: out of memory"
    elif code == _KILLED:
        reason = "its container was killed (SIGKILL: by hand, with its engine, or out of memory)"
    else:
        reason = f"its container ended with exit code {code}" + (f": {state['Error']}" if state.get("Error") else "")
    return State(state="failed", exit_code=code, reason=_one_line(reason), ended=_ended(state))


def _ended(state: dict[str, object]) -> str | None:
    """Return when a container ended, in the format of state.json: microseconds and a time zone offset."""
    match = re.fullmatch(r"(\d{4}-.*?)(\.\d{1,6})?\d*Z", str(state.get("FinishedAt", "")))
    return f"{match[1]}{match[2] or ''}+00:00" if match and not match[1].startswith("0001") else None
