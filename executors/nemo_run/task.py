"""Translates a job for NeMo-Run: its executor and its script. Imports nemo_run."""

import dataclasses
import os
import shlex
import sys
import tempfile
import typing
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nemo_run
import pydantic
import yaml
from nemo_run.run.torchx_backend.schedulers.kubeflow import KubeflowJobRequest
from nemo_run.run.torchx_backend.schedulers.skypilot import SkypilotRequest

from executors.nemo_run.rank import NEMO_RUN_FOLDER, plain_path
from neva_recipes.config import RunError, check_value, suggest

__all__ = ["TASK", "TITLE", "make_executor", "make_script", "request_text"]

TITLE = "run"
"""Name of the experiment."""

TASK = "ranks"
"""Name of the single task of the experiment."""

_CLASSES: Mapping[str, type[Any]] = {
    "local": nemo_run.LocalExecutor,
    "docker": nemo_run.DockerExecutor,
    "slurm": nemo_run.SlurmExecutor,
    "skypilot": nemo_run.SkypilotExecutor,
    "kubeflow": nemo_run.KubeflowExecutor,
    "dgxcloud": nemo_run.DGXCloudExecutor,
    "lepton": nemo_run.LeptonExecutor,
}

# For each backend, the fields of its class for the number of nodes and the processes per node.
_SIZES = {
    "local": ("nodes", "ntasks_per_node"),
    "docker": (None, "ntasks_per_node"),
    "slurm": ("nodes", "ntasks_per_node"),
    "skypilot": ("num_nodes", "torchrun_nproc_per_node"),
    "kubeflow": ("num_nodes", "nprocs_per_node"),
    "dgxcloud": ("nodes", "nprocs_per_node"),
    "lepton": ("nodes", "nprocs_per_node"),
}

_OWN_FIELDS = {"packager", "launcher", "tunnel", "env_vars", "job_dir", "experiment_id", "dependencies"}
"""Fields of NeMo-Run's classes that users cannot set."""


_SHELL_FIELDS = ("container_image", "container_mounts", "container_env", "srun_args")


def make_executor(
    backend: str,
    options: Mapping[str, str],
    *,
    num_nodes: int,
    processes_per_node: int,
    run_dir: Path,
    environ: Mapping[str, str],
) -> Any:
    """Return NeMo-Run's executor for a job.

    Args:
        backend: Name of the backend.
        options: Fields of its class as YAML text; `env:NAME` stands for a variable of `environ`.
        num_nodes: Number of nodes.
        processes_per_node: Ranks per node.
        run_dir: The run directory.
        environ: The environment variables.

    Raises:
        RunError: An option is unknown, missing, or of the wrong type.
    """
    cls = _CLASSES[backend]
    nodes_field, processes_field = _SIZES[backend]
    values = _given(backend, options, environ)
    # There is no code to package, but SkyPilot accepts only this packager.
    packager = nemo_run.GitArchivePackager() if backend == "skypilot" else nemo_run.Packager()
    # NeMo-Run writes torchrun's options for a shell, which Kubeflow does not use.
    launcher = None if backend == "kubeflow" else nemo_run.Torchrun(rdzv_port=_port(run_dir))
    values |= {"packager": packager, "launcher": launcher, processes_field: processes_per_node}
    if nodes_field is not None:
        values[nodes_field] = num_nodes
    values |= _own_values(backend, values, processes_per_node, run_dir)
    try:
        return cls(**values)
    except Exception as error:  # noqa: BLE001 each package behind NeMo-Run refuses options in its own way
        raise RunError(f"executor.options: {backend}: {' '.join(str(error).split())}") from None


def _given(backend: str, options: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the options that the user gives.

    Raises:
        RunError: An option is unknown, missing, or of the wrong type.
    """
    cls = _CLASSES[backend]
    known = {field.name: field for field in dataclasses.fields(cls) if field.init and field.name not in _OWN_FIELDS}
    for name in filter(None, _SIZES[backend]):
        known.pop(name, None)
    values = {name: _value(cls, known, name, text, environ) for name, text in options.items()}
    if backend == "slurm" and (secret := next((name for name in options if options[name].startswith("env:")), None)):
        raise RunError(f"executor.options.{secret}={options[secret]}: NeMo-Run writes options of Slurm into its script")
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RunError(f"executor.options: {backend} needs {', '.join(missing)}: add executor.options.{missing[0]}=...")
    return values


def _own_values(backend: str, given: Mapping[str, Any], processes_per_node: int, run_dir: Path) -> dict[str, Any]:
    """Return the values that a backend needs beside, or in place of, those that the user gives."""
    values: dict[str, Any] = {}
    if backend in ("local", "docker"):
        # Sets --local-addr of torchrun, because the host names of containers and of some machines do not resolve.
        values["env_vars"] = {"PET_LOCAL_ADDR": "127.0.0.1"}
    if backend == "docker":
        values["volumes"] = [*given.get("volumes", []), f"{run_dir}:{run_dir}"]
        own_user = {"user": f"{os.getuid()}:{os.getgid()}"}  # the user who starts the run owns its files
        values["additional_kwargs"] = own_user | given.get("additional_kwargs", {})
    if backend == "slurm":
        values["tunnel"] = nemo_run.LocalTunnel(job_dir=str(run_dir / NEMO_RUN_FOLDER / "experiments"))
        values["job_name_prefix"] = given.get("job_name_prefix", f"{run_dir.name}.")
        if "container_image" in given:
            values["container_mounts"] = [*given.get("container_mounts", []), f"{run_dir}:{run_dir}"]
        # NeMo-Run inserts these into a shell command without quoting.
        values |= {name: _quoted(text) for name, text in {**given, **values}.items() if name in _SHELL_FIELDS}
    if backend == "skypilot" and "gpus" in given:
        values["gpus_per_node"] = given.get("gpus_per_node", processes_per_node)  # NeMo-Run's default is one GPU
    if backend == "kubeflow":
        values["train_job_basename"] = given.get("train_job_basename", run_dir.name)
    return values


def _value(cls: type[Any], known: Mapping[str, object], name: str, text: str, environ: Mapping[str, str]) -> Any:
    path = f"executor.options.{name}"
    if name not in known:
        taken = ": set by the recipe and the run" if name in {field.name for field in dataclasses.fields(cls)} else ""
        raise RunError(f"{path}: no such option of NeMo-Run's {cls.__name__}{taken or suggest(name, list(known))}")
    if text.startswith("env:"):
        if text[4:] not in environ:
            raise RunError(f"{path}={text}: {text[4:]} is not set in the environment")
        return environ[text[4:]]
    annotation = typing.get_type_hints(cls)[name]
    try:
        is_text = annotation is str or (annotation == str | None and text != "null")
        value = text if is_text else yaml.safe_load(text)
        value = pydantic.TypeAdapter(annotation).validate_python(value, strict=True)
    except (yaml.YAMLError, pydantic.ValidationError):
        shown = annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else annotation
        raise RunError(f"{path}={text}: expected {str(shown).replace('typing.', '')}, written as in YAML") from None
    for item in _texts(value):
        check_value(str, item, path)  # YAML can escape a line break in a string
    return value


def _texts(value: object) -> Iterator[str]:
    """Yield every string in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(item)


def _port(run_dir: Path) -> int:
    """Return a rendezvous port that depends on the run; by default all jobs would use the same one."""
    return 20000 + zlib.crc32(os.fsencode(run_dir)) % 10000


def _quoted(value: str | list[str] | None) -> str | list[str] | None:
    return [shlex.quote(text) for text in value] if isinstance(value, list) else value and shlex.quote(value)


def make_script(executor: Any, python: str | None, run_dir: Path) -> Any:
    """Return the script for NeMo-Run: one rank if NeMo-Run starts torchrun, else torchrun itself.

    Args:
        executor: NeMo-Run's executor.
        python: Python interpreter of the ranks; `None` for that of this process.
        run_dir: The run directory.
    """
    program = python or sys.executable
    module = ["-P", "-m", "executors.nemo_run.rank", plain_path(run_dir)]
    if executor.launcher is not None:
        return nemo_run.Script(path=program, args=module)
    # Kubeflow's torch runtime sets variables that tell torchrun the node rank and the address of the first node.
    size = ["--nnodes", str(executor.nnodes()), "--nproc-per-node", str(executor.nproc_per_node())]
    return nemo_run.Script(entrypoint="torchrun", path="--no-python", args=[*size, program, *module])


def request_text(executor: object, script: object) -> str:
    """Return the request that NeMo-Run would send to its backend; starts nothing and leaves no files.

    Raises:
        RunError: NeMo-Run cannot make the request here, for example without the package of the backend.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with nemo_run.Experiment(TITLE, executor=executor, base_dir=folder, clean_mode=True) as experiment:
                experiment.add(script, name=TASK)
                experiment.dryrun(log=False, delete_exp_dir=False)
                return _text(experiment.jobs[0]._dryrun_info)
        except (AssertionError, ImportError, AttributeError, NameError) as error:
            raise RunError(f"NeMo-Run cannot make the request: {' '.join(str(error).split())}") from None


def _text(dry_run: Any) -> str:
    request = dry_run.request
    if isinstance(request, KubeflowJobRequest):  # NeMo-Run would show only the command
        return yaml.safe_dump(request.executor.get_job_body(request.name, request.cmd), sort_keys=False)
    if isinstance(request, SkypilotRequest):  # NeMo-Run would call a function that SkyPilot does not have
        return yaml.safe_dump(request.task.to_yaml_config(), sort_keys=False)
    return str(dry_run)
