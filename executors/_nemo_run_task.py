"""A job in NeMo-Run's terms: its executor, and the script it runs. Imports nemo_run."""

import dataclasses
import os
import shlex
import sys
import tempfile
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nemo_run
import pydantic
import yaml

from executors._nemo_run_rank import plain_path
from neva_recipes.config import RunError, check_value, suggest
from neva_recipes.secrets import is_secret

__all__ = ["TASK", "make_executor", "make_script", "request_text"]

TASK = "ranks"
"""What the one task of the experiment is called."""

_CLASSES: Mapping[str, type[Any]] = {
    "local": nemo_run.LocalExecutor,
    "docker": nemo_run.DockerExecutor,
    "slurm": nemo_run.SlurmExecutor,
    "skypilot": nemo_run.SkypilotExecutor,
    "kubeflow": nemo_run.KubeflowExecutor,
    "dgxcloud": nemo_run.DGXCloudExecutor,
    "lepton": nemo_run.LeptonExecutor,
}

# By backend, the fields of its class that say how many machines there are, and how many processes on each.
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
"""Fields of NeMo-Run's classes that are not the user's to set here."""


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
        backend: A key of the table of classes.
        options: Fields of its class as YAML text; `env:NAME` stands for a variable of `environ`.
        num_nodes: Machines.
        processes_per_node: Ranks on each.
        run_dir: The run directory.
        environ: Where variables are looked up.

    Raises:
        RunError: An option is unknown, missing, of the wrong type, or a secret in clear text.
    """
    cls = _CLASSES[backend]
    nodes_field, processes_field = _SIZES[backend]
    known = {field.name: field for field in dataclasses.fields(cls) if field.init and field.name not in _OWN_FIELDS}
    for name in filter(None, _SIZES[backend]):
        known.pop(name, None)
    values = {name: _value(cls, known, name, text, environ) for name, text in options.items()}
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RunError(f"executor.options: {backend} needs {', '.join(missing)}: add executor.options.{missing[0]}=...")
    values |= {"packager": nemo_run.Packager(), "launcher": "torchrun", processes_field: processes_per_node}
    if nodes_field is not None:
        values[nodes_field] = num_nodes
    if backend in ("local", "docker"):
        # The option --local-addr of torchrun: names of containers, and of some machines, resolve nowhere.
        values["env_vars"] = {"PET_LOCAL_ADDR": "127.0.0.1"}
    if backend == "docker":
        values["volumes"] = [*values.get("volumes", []), f"{run_dir}:{run_dir}"]
        own_user = {"user": f"{os.getuid()}:{os.getgid()}"}  # files of the run belong to whoever started it
        values["additional_kwargs"] = own_user | values.get("additional_kwargs", {})
    if backend == "slurm":
        values["tunnel"] = nemo_run.LocalTunnel(job_dir="")
        if "container_image" in values:
            values["container_mounts"] = [*values.get("container_mounts", []), f"{run_dir}:{run_dir}"]
        # NeMo-Run puts these into a line of shell as they are.
        values |= {name: _quoted(values[name]) for name in _SHELL_FIELDS if name in values}
    try:
        return cls(**values)
    except (AssertionError, TypeError, ValueError, ImportError) as error:
        raise RunError(f"executor.options: {backend}: {' '.join(str(error).split())}") from None


def _value(cls: type[Any], known: Mapping[str, Any], name: str, text: str, environ: Mapping[str, str]) -> Any:
    path = f"executor.options.{name}"
    if name not in known:
        taken = ": set by the recipe and the run" if name in {field.name for field in dataclasses.fields(cls)} else ""
        raise RunError(f"{path}: no such option of NeMo-Run's {cls.__name__}{taken or suggest(name, list(known))}")
    if text.startswith("env:"):
        if text[4:] not in environ:
            raise RunError(f"{path}={text}: {text[4:]} is not set in the environment")
        return environ[text[4:]]
    if is_secret(name, text):
        raise RunError(f"{path}: would be written to files: put it into a variable and set {path}=env:VARIABLE")
    annotation = typing.get_type_hints(cls)[name]
    try:
        is_text = annotation is str or (annotation == str | None and text != "null")
        value = text if is_text else yaml.safe_load(text)
        value = pydantic.TypeAdapter(annotation).validate_python(value, strict=True)
    except (yaml.YAMLError, pydantic.ValidationError):
        shown = annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else annotation
        raise RunError(f"{path}={text}: expected {str(shown).replace('typing.', '')}, written as in YAML") from None
    for item in _texts(value):
        check_value(str, item, path)  # in YAML a line break can be written within a line
    return value


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(item)


def _quoted(value: str | list[str] | None) -> str | list[str] | None:
    return [shlex.quote(text) for text in value] if isinstance(value, list) else value and shlex.quote(value)


def make_script(python: str, run_dir: Path) -> Any:
    """Return what NeMo-Run runs under torchrun, once per rank.

    Args:
        python: Python interpreter of the place; empty for the one of this process.
        run_dir: The run directory.
    """
    module = ["-P", "-m", "executors._nemo_run_rank", plain_path(run_dir)]
    return nemo_run.Script(path=python or sys.executable, args=module)


def request_text(executor: Any, script: Any) -> str:
    """Return what NeMo-Run would ask its backend for; nothing is started, and its files are removed.

    Raises:
        RunError: NeMo-Run cannot make the request here, as without the package of the backend.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with nemo_run.Experiment("neva", executor=executor, base_dir=folder, clean_mode=True) as experiment:
                experiment.add(script, name=TASK)
                experiment.dryrun(log=False, delete_exp_dir=False)
                return str(experiment.jobs[0]._dryrun_info)
        except (AssertionError, ImportError, AttributeError, NameError) as error:
            raise RunError(f"NeMo-Run cannot make the request: {' '.join(str(error).split())}") from None
