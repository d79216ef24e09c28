"""Where a recipe runs: starting, watching and stopping the processes of a job. Never imports torch.

Names are loaded on first use: the supervisor of a run lives in this package too, and starts without what it does not
need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors._finding import find_run, list_runs
    from executors._script import run_directory_script
    from executors._state import State, read_state, write_state
    from executors.base import Executor, RefusedError
    from executors.cleanup import Leftover, find_leftovers, remove_leftover
    from executors.docker import DockerExecutor
    from executors.job import Job
    from executors.launch import job_of, plan_job, run, start_job
    from executors.local import LocalExecutor
    from executors.nemo_run import NemoRunExecutor
    from executors.pipeline import Evaluate, Export, Pipeline, Stage
    from executors.pipeline_launch import PipelineJob, plan_pipeline, run_pipeline, start_pipeline
    from executors.registry import find_executor
    from executors.runs import Run, RunStatus
    from executors.slurm import SlurmExecutor

__all__ = [
    "DockerExecutor",
    "Evaluate",
    "Executor",
    "Export",
    "Job",
    "Leftover",
    "LocalExecutor",
    "NemoRunExecutor",
    "Pipeline",
    "PipelineJob",
    "RefusedError",
    "Run",
    "RunStatus",
    "SlurmExecutor",
    "Stage",
    "State",
    "find_executor",
    "find_leftovers",
    "find_run",
    "job_of",
    "list_runs",
    "plan_job",
    "plan_pipeline",
    "read_state",
    "remove_leftover",
    "run",
    "run_directory_script",
    "run_pipeline",
    "start_job",
    "start_pipeline",
    "write_state",
]

_HOMES = {
    "DockerExecutor": "docker",
    "Evaluate": "pipeline",
    "Executor": "base",
    "Export": "pipeline",
    "Job": "job",
    "Leftover": "cleanup",
    "LocalExecutor": "local",
    "NemoRunExecutor": "nemo_run",
    "Pipeline": "pipeline",
    "PipelineJob": "pipeline_launch",
    "RefusedError": "base",
    "Run": "runs",
    "RunStatus": "runs",
    "SlurmExecutor": "slurm",
    "Stage": "pipeline",
    "State": "_state",
    "find_executor": "registry",
    "find_leftovers": "cleanup",
    "find_run": "_finding",
    "job_of": "launch",
    "list_runs": "_finding",
    "plan_job": "launch",
    "plan_pipeline": "pipeline_launch",
    "read_state": "_state",
    "remove_leftover": "cleanup",
    "run": "launch",
    "run_directory_script": "_script",
    "run_pipeline": "pipeline_launch",
    "start_job": "launch",
    "start_pipeline": "pipeline_launch",
    "write_state": "_state",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
