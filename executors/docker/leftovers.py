"""Removes ended containers that are left because the process that should have removed them was killed."""

import contextlib
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from executors.docker.container import DIRECTORY_LABEL, HOST_LABEL, TRIAL_LABEL
from executors.docker.engine import engine_errors
from neva_recipes.config import PlainTable
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.state import FINAL, read_state

if TYPE_CHECKING:
    import docker

__all__ = ["remove_leftovers"]

_ENDED = ["created", "exited", "dead"]


def remove_leftovers(client: "docker.DockerClient") -> None:
    """Remove the ended containers of this machine's runs that are no longer needed.

    The container of a run is needed until state.json is final or the run directory is gone; that of a trial is needed
    until its command has ended.

    Raises:
        DockerException, RequestException, OSError: The engine cannot be reached.
    """
    wanted = {"label": f"{HOST_LABEL}={socket.gethostname()}", "status": _ENDED}
    for found in client.api.containers(all=True, filters=wanted):
        if _is_done(found["Labels"]):
            with contextlib.suppress(*engine_errors()):  # another process is removing it
                client.api.remove_container(found["Id"], v=True)


def _is_done(labels: dict[str, str]) -> bool:
    if TRIAL_LABEL in labels:
        command: PlainTable = json.loads(labels[TRIAL_LABEL])
        return not processes.is_alive(command)
    try:
        return read_state(Path(labels[DIRECTORY_LABEL])).state in FINAL
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
