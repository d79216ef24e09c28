"""Ended containers that nobody removed, because whoever should have done so was killed."""

import contextlib
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from executors import _process
from executors._docker_container import DIRECTORY_LABEL, HOST_LABEL, TRIAL_LABEL
from executors._docker_engine import engine_errors
from executors._state import FINAL, read_state

if TYPE_CHECKING:
    import docker

__all__ = ["remove_leftovers"]

_ENDED = ["created", "exited", "dead"]


def remove_leftovers(client: "docker.DockerClient") -> None:
    """Remove the ended containers of this machine's runs that have nothing more to tell.

    A container of a run has not before the end of the run is written down, or its directory is gone; a trial has not
    when the command that made it is gone.

    Raises:
        DockerException, RequestException, OSError: The engine cannot be asked.
    """
    wanted = {"label": f"{HOST_LABEL}={socket.gethostname()}", "status": _ENDED}
    for found in client.api.containers(all=True, filters=wanted):
        if _is_done(found["Labels"]):
            with contextlib.suppress(*engine_errors()):  # somebody else is removing it
                client.api.remove_container(found["Id"], v=True)


def _is_done(labels: dict[str, str]) -> bool:
    if TRIAL_LABEL in labels:
        command: dict[str, Any] = json.loads(labels[TRIAL_LABEL])
        return not _process.is_alive(command)
    try:
        return read_state(Path(labels[DIRECTORY_LABEL])).state in FINAL
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
