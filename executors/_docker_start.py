"""Starting a container: a trial before anything is written, and the process that stays with the real one."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from executors import _process
from executors._docker_container import TRIAL_LABEL, Container
from executors._docker_watch import Order, hand_over
from neva_recipes.config import RunError

if TYPE_CHECKING:
    import docker

__all__ = ["probe", "start_watch"]

_PROBE_SECONDS = 120

_PROBE = """
import importlib.util, json, os, sys
for name in ("executors", "neva_recipes", "neva_model", "torch"):
    if importlib.util.find_spec(name) is None:
        sys.exit(f"its Python has no package {name}: executor.mount_code=true mounts those of this machine")
import executors._docker_init
for path in json.loads(sys.argv[1]):
    if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
        sys.exit(f"{path!r} cannot be read there by the user {os.getuid()}:{os.getgid()}")
"""


def probe(client: "docker.DockerClient", container: Container, run_dir: Path) -> None:
    """Run a container like the one to be, which looks around and ends; nothing of it is left.

    Raises:
        RunError: It lacks what a job needs.
        DockerException, RequestException, OSError: The engine refuses, or cannot be asked.
    """
    paths = [bind.target for bind in container.binds if bind.target != str(run_dir)]
    trial = dataclasses.replace(
        container,
        binds=tuple(bind for bind in container.binds if bind.target != str(run_dir)),
        arguments=("-P", "-c", _PROBE, json.dumps(paths)),
        secrets={},
        labels={**container.labels, TRIAL_LABEL: json.dumps(_process.identify(os.getpid()))},
        working_dir="/",
    )
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
    """Start the process that starts the container and stays with it; return once the run runs.

    Args:
        run_dir: The run directory.
        address: Where the engine is.
        container: What to start.
        owner: Numbers of the user and group whom the run directory is given to; none if it is theirs.
        lock: File descriptor of the run directory's lock, which that process keeps.
        lifeline: File descriptor whose end cancels the run; none for a detached run.

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
    pipes: list[int] = []
    try:
        hand_over(run_dir, owner)
        ready, ready_write = os.pipe()
        pipes += [ready, ready_write]
        order_read, order_write = os.pipe()
        pipes += [order_read, order_write]
        command = [sys.executable, "-P", "-m", "executors._docker_watch", str(order_read)]
        with (run_dir / "logs" / "joined.log").open("ab") as log:
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
        process.wait()  # it forks and is gone
    except OSError as error:
        raise RunError(f"run {run_dir.name} cannot be started: {error}") from None
    finally:
        for descriptor in pipes:
            os.close(descriptor)
    if answer != "ok":
        reason = answer.removeprefix("error: ") or f"what watches over it ended at once, see {run_dir / 'logs'}"
        raise RunError(f"run {run_dir.name} cannot be started: {reason}")
