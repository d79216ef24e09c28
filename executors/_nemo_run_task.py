"""A job in NeMo-Run's terms: its executor, and the script it runs. Imports nemo_run."""

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

from executors._nemo_run_rank import NEMO_RUN_FOLDER, plain_path
from neva_recipes.config import RunError, check_value, suggest

__all__ = ["TASK", "TITLE", "make_executor", "make_script", "request_text"]

TITLE = "run"
"""What the experiment is called."""

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
        RunError: An option is unknown, missing, or of the wrong type.
    """
    cls = _CLASSES[backend]
    nodes_field, processes_field = _SIZES[backend]
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
    # Nothing is to be packed. SkyPilot takes no other packager than this one.
    packager = nemo_run.GitArchivePackager() if backend == "skypilot" else nemo_run.Packager()
    # NeMo-Run's text of torchrun's options is for a shell, and Kubeflow has none.
    launcher = None if backend == "kubeflow" else nemo_run.Torchrun(rdzv_port=_port(run_dir))
    values |= {"packager": packager, "launcher": launcher, processes_field: processes_per_node}
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
        values["tunnel"] = nemo_run.LocalTunnel(job_dir=str(run_dir / NEMO_RUN_FOLDER / "experiments"))
        values.setdefault("job_name_prefix", f"{run_dir.name}.")
        if "container_image" in values:
            values["container_mounts"] = [*values.get("container_mounts", []), f"{run_dir}:{run_dir}"]
        # NeMo-Run puts these into a line of shell as they are.
        values |= {name: _quoted(values[name]) for name in _SHELL_FIELDS if name in values}
    if backend == "skypilot" and "gpus" in values:
        values.setdefault("gpus_per_node", processes_per_node)  # NeMo-Run would ask for a single one
    if backend == "kubeflow":
        values.setdefault("train_job_basename", run_dir.name)
    try:
        return cls(**values)
    except Exception as error:  # noqa: BLE001 each package behind NeMo-Run refuses options in its own way
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


def _port(run_dir: Path) -> int:
    """Return a port for the machines of a job to meet at: by default those of all jobs take the same one."""
    return 20000 + zlib.crc32(os.fsencode(run_dir)) % 10000


def _quoted(value: str | list[str] | None) -> str | list[str] | None:
    return [shlex.quote(text) for text in value] if isinstance(value, list) else value and shlex.quote(value)


def make_script(executor: Any, python: str, run_dir: Path) -> Any:
    """Return what NeMo-Run runs: one rank for its torchrun, or torchrun itself where it has none.

    Args:
        executor: NeMo-Run's executor.
        python: Python interpreter of the place; empty for the one of this process.
        run_dir: The run directory.
    """
    program = python or sys.executable
    module = ["-P", "-m", "executors._nemo_run_rank", plain_path(run_dir)]
    if executor.launcher is not None:
        return nemo_run.Script(path=program, args=module)
    # The Kubeflow runtime of torch tells torchrun by variables which machine it is and where the first one is.
    size = ["--nnodes", str(executor.nnodes()), "--nproc-per-node", str(executor.nproc_per_node())]
    return nemo_run.Script(entrypoint="torchrun", path="--no-python", args=[*size, program, *module])


def request_text(executor: Any, script: Any) -> str:
    """Return what NeMo-Run would ask its backend for; nothing is started, and its files are removed.

    Raises:
        RunError: NeMo-Run cannot make the request here, as without the package of the backend.
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
    if isinstance(request, KubeflowJobRequest):  # of this one NeMo-Run shows the command alone
        return yaml.safe_dump(request.executor.get_job_body(request.name, request.cmd), sort_keys=False)
    if isinstance(request, SkypilotRequest):  # NeMo-Run calls for the text a function that SkyPilot has not got
        return yaml.safe_dump(request.task.to_yaml_config(), sort_keys=False)
    return str(dry_run)
