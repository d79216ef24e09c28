"""Where a recipe runs: starting, watching and stopping the processes of a job. Never imports torch.

Names are loaded on first use: the supervisor of a run lives in this package too, and starts without what it does not
need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors.base import Executor
    from executors.cleanup import Leftover, find_leftovers, remove_leftover
    from executors.job import Job
    from executors.launch import job_of, plan_job, run, start_job
    from executors.local import LocalExecutor
    from executors.registry import find_executor
    from executors.runs import Run, RunStatus, find_run, list_runs

__all__ = [
    "Executor",
    "Job",
    "Leftover",
    "LocalExecutor",
    "Run",
    "RunStatus",
    "find_executor",
    "find_leftovers",
    "find_run",
    "job_of",
    "list_runs",
    "plan_job",
    "remove_leftover",
    "run",
    "start_job",
]

_HOMES = {
    "Executor": "base",
    "Job": "job",
    "Leftover": "cleanup",
    "LocalExecutor": "local",
    "Run": "runs",
    "RunStatus": "runs",
    "find_executor": "registry",
    "find_leftovers": "cleanup",
    "find_run": "runs",
    "job_of": "launch",
    "list_runs": "runs",
    "plan_job": "launch",
    "remove_leftover": "cleanup",
    "run": "launch",
    "start_job": "launch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
