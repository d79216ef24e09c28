"""Checks, before anything is written, whether NeMo-Run's backend is available and accepts a job."""

import contextlib
import io
import shutil
import subprocess
from collections.abc import Callable, Collection
from typing import Any

from executors.docker.engine import engine_address
from neva_recipes.config import RunError
from neva_recipes.secrets import mask

__all__ = ["require_gpus", "require_place"]

_ANSWER_SECONDS = 60.0

_GPU_FIELDS = ("gpus_per_node", "num_gpus")


def require_gpus(options: Collection[str], nemo_executor: object, processes_per_node: int) -> None:
    """Raise `RunError` if fewer GPUs per node are requested than processes.

    Args:
        options: Names of the options that were set.
        nemo_executor: NeMo-Run's executor.
        processes_per_node: Ranks per node.
    """
    for name in _GPU_FIELDS:
        count = getattr(nemo_executor, name) if name in options else None
        if isinstance(count, int) and 0 < count < processes_per_node:
            raise RunError(
                f"executor.options.{name}={count}: each of {processes_per_node} processes of a machine needs a GPU; "
                f"set it to {processes_per_node}, or trainer.devices={count}"
            )


def require_place(backend: str, nemo_executor: Any, request_text: Callable[[], str]) -> None:
    """Raise `RunError` if the backend is not available or refuses the job.

    Args:
        backend: Name of the backend; those in clouds are not checked.
        nemo_executor: NeMo-Run's executor.
        request_text: Returns the request that NeMo-Run would send.
    """
    if backend == "docker":
        _require_image(nemo_executor.container_image)
    elif backend == "slurm":
        _require_slurm(request_text)


def _require_image(image: str) -> None:
    try:
        import docker
    except ImportError:
        raise RunError(
            "executor.backend=docker: NeMo-Run needs the Python package docker for it: pip install docker"
        ) from None
    from docker.errors import DockerException, ImageNotFound
    from requests.exceptions import RequestException

    try:
        client = docker.from_env(timeout=_ANSWER_SECONDS)
        client.ping()
    except (DockerException, RequestException, OSError):
        raise RunError(
            f"executor.backend=docker: no Docker engine answers at {mask(engine_address(None))}: start it, or name "
            "another one by DOCKER_HOST"
        ) from None
    try:
        try:
            client.images.get(image)
        except ImageNotFound:
            client.images.get_registry_data(image)  # NeMo-Run would pull it
    except (DockerException, RequestException) as error:
        said = mask(" ".join(str(getattr(error, "explanation", None) or error).split()))
        raise RunError(
            f"executor.options.container_image={image}: no such image here, and none can be fetched: {said}"
        ) from None
    finally:
        client.close()


def _require_slurm(request_text: Callable[[], str]) -> None:
    if shutil.which("sbatch") is None:
        raise RunError("executor.backend=slurm: no Slurm here: sbatch is not on PATH")
    with contextlib.redirect_stdout(io.StringIO()):  # NeMo-Run prints how it interprets its options
        text = request_text()
    script = text.partition("#!/bin/bash")[2]  # the command precedes the script
    try:
        done = subprocess.run(
            ["sbatch", "--test-only"],
            input=f"#!/bin/bash{script}",
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"Slurm does not answer: sbatch has waited {_ANSWER_SECONDS:.0f} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        # If Slurm cannot be reached, the lines before the fatal error only describe the attempts.
        fatal = [line for line in lines if line.startswith("sbatch: fatal: ")]
        lines = [*fatal, *lines, f"sbatch ended with exit code {done.returncode}"]
        said = lines[0].removeprefix("sbatch: fatal: ").removeprefix("sbatch: error: ")
        raise RunError(f"executor.options: Slurm refuses the job: {said}")
