"""Starts a container: first a trial before anything is written, then the process that watches the real one."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from executors.docker.container import TRIAL_LABEL, Container
from executors.docker.watch import Order, hand_over
from neva_recipes.config import RunError
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.layout import LOGS, joined_log
from neva_recipes.run_directory.stages import run_title

if TYPE_CHECKING:
    import docker

__all__ = ["probe", "start_watch"]

_PROBE_SECONDS = 120

_PROBE = """
import importlib.util, json, os, sys
for name in ("executors", "neva_recipes", "neva_model", "torch"):
    if importlib.util.find_spec(name) is None:
        sys.exit(f"its Python has no package {name}: executor.mount_code=true mounts those of this machine")
import executors.docker.init
for path in json.loads(sys.argv[1]):
    if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
        sys.exit(f"{path!r} cannot be read there by the user {os.getuid()}:{os.getgid()}")
"""


def _require_sources(client: "docker.DockerClient", trial: Container) -> None:
    """Raise an error of the engine or `RunError` if a source is missing that the engine would create empty."""
    from docker.errors import NotFound

    for volume in (bind.source for bind in trial.binds if bind.volume):
        try:
            client.api.inspect_volume(volume)
        except NotFound:
            raise RunError(
                f"executor.mounts: the Docker engine has no volume {volume}: make it (docker volume create {volume}), "
                f"or write ./{volume} for a folder"
            ) from None
    if any(bind.relabel for bind in trial.binds):
        plain = dataclasses.replace(trial, binds=tuple(dataclasses.replace(bind, relabel="") for bind in trial.binds))
        client.api.remove_container(client.api.create_container_from_config(plain.api())["Id"], force=True)


def probe(client: "docker.DockerClient", container: Container, run_dir: Path) -> None:
    """Run a similar container that checks its packages and files, and remove it.

    Raises:
        RunError: The container lacks something that the job needs, or a volume is missing.
        DockerException, RequestException, OSError: The engine refuses, or cannot be reached.
    """
    paths = [bind.target for bind in container.binds if bind.target != str(run_dir)]
    trial = dataclasses.replace(
        container,
        binds=tuple(bind for bind in container.binds if bind.target != str(run_dir)),
        arguments=("-P", "-c", _PROBE, json.dumps(paths)),
        secrets={},
        labels={**container.labels, TRIAL_LABEL: json.dumps(processes.identify(os.getpid()))},
        working_dir="/",
    )
    _require_sources(client, trial)
    name = client.api.create_container_from_config(trial.api())["Id"]
    try:
        client.api.start(name)
        code = client.api.wait(name, timeout=_PROBE_SECONDS)["StatusCode"]
        if code:
            words = client.api.logs(name, tail=20).decode(errors="replace").strip().splitlines()
            said = words[-1].strip() if words else f"a trial of its Python ended with exit code {code}"
            raise RunError(f"executor.image={container.image}: {said}")
    finally:
        client.api.remove_container(name, force=True, v=True)


def start_watch(
    run_dir: Path,
    address: str,
    container: Container,
    owner: tuple[int, int] | None,
    *,
    lock: int,
    lifeline: int | None,
) -> None:
    """Start the process that starts and watches the container; return once the run has started.

    Args:
        run_dir: The run directory.
        address: Address of the engine.
        container: The container.
        owner: User id and group id of the new owner of the run directory; `None` to keep its owner.
        lock: File descriptor of the run directory's lock, which the process keeps open.
        lifeline: File descriptor whose end of file cancels the run; `None` for a detached run.

    Raises:
        RunError: The run could not be started.
    """
    order = Order(
        run_dir=str(run_dir),
        address=address,
        name=container.name,
        config=container.api(),
        standard_input=container.standard_input.decode("utf-8", "surrogateescape"),
        owner=owner,
    )
    try:
        hand_over(run_dir, owner)
        answer = _answer_to(order, run_dir, lock, lifeline)
    except OSError as error:
        raise RunError(f"run {run_title(run_dir)} cannot be started: {error}") from None
    if answer != "ok":
        reason = answer.removeprefix("error: ") or f"what watches over it ended at once, see {run_dir / LOGS}"
        raise RunError(f"run {run_title(run_dir)} cannot be started: {reason}")


def _answer_to(order: Order, run_dir: Path, lock: int, lifeline: int | None) -> str:
    """Start the process that watches, give it its order, and return its answer.

    Raises:
        OSError: It cannot be started.
    """
    pipes: list[int] = []
    try:
        ready, ready_write = os.pipe()
        pipes += [ready, ready_write]
        order_read, order_write = os.pipe()
        pipes += [order_read, order_write]
        command = [sys.executable, "-P", "-m", "executors.docker.watch", str(order_read)]
        with joined_log(run_dir).open("ab") as log:
            process = subprocess.Popen(
                [*command, "--attached"] if lifeline is not None else command,
                stdin=subprocess.DEVNULL if lifeline is None else lifeline,
                stdout=ready_write,
                stderr=log,
                pass_fds=(lock, order_read),
                start_new_session=True,
            )
        os.close(ready_write)
        os.close(order_read)
        pipes = [ready]
        with contextlib.suppress(BrokenPipeError), os.fdopen(order_write, "w", encoding="utf-8") as pipe:
            json.dump(dataclasses.asdict(order), pipe)
        with open(ready, encoding="utf-8", errors="replace", closefd=False) as pipe:
            answer = pipe.readline().strip()
        process.wait()  # the process forks and exits at once
        return answer
    finally:
        for descriptor in pipes:
            os.close(descriptor)
