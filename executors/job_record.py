"""Reads the job of a run from its job.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executors.base import Executor
from executors.kinds import kind_class
from neva_recipes.config import PlainTable, RunError, expand_path, model_paths
from neva_recipes.run_directory.layout import JOB_FILE
from neva_recipes.run_directory.stages import TOOL_FILE
from neva_recipes.run_directory.state import read_json

__all__ = ["executor_class", "load_executor", "read_job_record", "read_needs", "tool_needs"]

_MOVED = {"executors._pipeline_driver": "executors.pipelines.driver"}
"""Modules named in job.json of earlier versions, and their present names."""


def read_job_record(run_dir: Path) -> PlainTable:
    """Return the content of job.json in a run directory.

    Raises:
        RunError: It is missing or not of the form that `Job.to_json` writes.
    """
    path = run_dir / JOB_FILE
    try:
        record: PlainTable = read_json(path)
        kinds = {"name": str, "created": str, "argv": list, "cwd": str, "world_size": int, "executor": dict}
        if not all(isinstance(record[name], kind) for name, kind in kinds.items()):
            raise ValueError("not a job description")
        record["argv"] = [_MOVED.get(word, word) for word in record["argv"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read as the job of a run: {error}") from None
    return record


def read_needs(run_dir: Path) -> tuple[tuple[Path, ...], bool]:
    """Return the paths that the tool of a stage reads, and whether it uses a GPU; nothing for any other run.

    Earlier versions noted neither.

    Raises:
        RecipeError: The recipe of the run whose model it uses cannot be read.
        RunError: tool.json cannot be read.
    """
    path = run_dir / TOOL_FILE
    try:
        return tool_needs(read_json(path))
    except FileNotFoundError:
        return (), False
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RunError(f"{path}: cannot be read as the tool of a stage: {error}") from None


def tool_needs(record: Mapping[str, Any]) -> tuple[tuple[Path, ...], bool]:
    """Return the paths that a tool reads and whether it uses a GPU, from the content of its tool.json."""
    model = expand_path(record.get("fields", {}).get("model", ""))
    paths = [*map(Path, record.get("reads", ())), *(model_paths(model) if model.is_absolute() else ())]
    return tuple(dict.fromkeys(paths)), bool(record.get("on_gpu"))


def executor_class(record: Mapping[str, Any]) -> type[Executor]:
    """Return the class of the executor that job.json names.

    Raises:
        RunError: There is no executor of this name.
        RecipeError: Its package cannot be imported.
    """
    try:
        return kind_class(record["executor"].get("kind"))
    except RunError as error:
        raise RunError(f"run {record['name']}: {error}") from None


def load_executor(record: Mapping[str, Any], environ: Mapping[str, str]) -> Executor:
    """Return the executor that job.json describes; its secret variables are taken from `environ`.

    Raises:
        RunError: The executor is unknown, or a secret variable is not set.
    """
    cls = executor_class(record)
    fields = {name: value for name, value in record["executor"].items() if name not in ("kind", "secret_env")}
    secrets = record["executor"].get("secret_env", [])
    for name in secrets:
        if name not in environ:
            raise RunError(
                f"{name} was set for run {record['name']} and is not stored in it: set it in the environment"
            )
    try:
        return cls(**{**fields, "env": {**fields.get("env", {}), **{name: environ[name] for name in secrets}}})
    except TypeError as error:
        raise RunError(f"executor of run {record['name']}: {error}") from None
