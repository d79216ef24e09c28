"""Where a recipe runs: starting, watching and stopping the processes of a job. Never imports torch.

Names are imported on first use, because the supervisor of a run is also in this package and must start without modules
that it does not need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors.base import Executor, Job, RefusedError
    from executors.disk import disk_finding
    from executors.docker.executor import DockerExecutor
    from executors.launch import job_of, plan_job, run, start_job
    from executors.local import LocalExecutor
    from executors.nemo_run.executor import NemoRunExecutor
    from executors.pipelines.launch import run_pipeline, start_pipeline
    from executors.pipelines.planning import PipelineJob, plan_pipeline
    from executors.pipelines.resume import resume_pipeline
    from executors.pipelines.single import require_single
    from executors.registry import find_executor
    from executors.runs.cleanup import Leftover, find_leftovers, remove_leftovers
    from executors.runs.finding import find_run, find_runs, list_runs
    from executors.runs.paths import is_pattern
    from executors.runs.results import Evaluation, Results
    from executors.runs.run import Run
    from executors.runs.standing import RunStatus
    from executors.script import run_directory_script
    from executors.settling import settle, with_named_runs
    from executors.slurm.executor import SlurmExecutor
    from neva_recipes.pipeline import (
        Evaluate,
        Export,
        ExtendVocabulary,
        Generate,
        LocalizationReport,
        MergeTokenizers,
        Pipeline,
        Stage,
        TokenizeText,
        TrainTokenizer,
    )
    from neva_recipes.run_directory.metrics import Curve, Point
    from neva_recipes.run_directory.state import State, read_state, write_state

__all__ = [
    "Curve",
    "DockerExecutor",
    "Evaluate",
    "Evaluation",
    "Executor",
    "Export",
    "ExtendVocabulary",
    "Generate",
    "Job",
    "Leftover",
    "LocalExecutor",
    "LocalizationReport",
    "MergeTokenizers",
    "NemoRunExecutor",
    "Pipeline",
    "PipelineJob",
    "Point",
    "RefusedError",
    "Results",
    "Run",
    "RunStatus",
    "SlurmExecutor",
    "Stage",
    "State",
    "TokenizeText",
    "TrainTokenizer",
    "disk_finding",
    "find_executor",
    "find_leftovers",
    "find_run",
    "find_runs",
    "is_pattern",
    "job_of",
    "list_runs",
    "plan_job",
    "plan_pipeline",
    "read_state",
    "remove_leftovers",
    "require_single",
    "resume_pipeline",
    "run",
    "run_directory_script",
    "run_pipeline",
    "settle",
    "start_job",
    "start_pipeline",
    "with_named_runs",
    "write_state",
]

_HOMES = {
    "Curve": "neva_recipes.run_directory.metrics",
    "DockerExecutor": "executors.docker.executor",
    "Evaluate": "neva_recipes.pipeline",
    "Evaluation": "executors.runs.results",
    "Executor": "executors.base",
    "Export": "neva_recipes.pipeline",
    "ExtendVocabulary": "neva_recipes.pipeline",
    "Generate": "neva_recipes.pipeline",
    "Job": "executors.base",
    "Leftover": "executors.runs.cleanup",
    "LocalExecutor": "executors.local",
    "LocalizationReport": "neva_recipes.pipeline",
    "MergeTokenizers": "neva_recipes.pipeline",
    "NemoRunExecutor": "executors.nemo_run.executor",
    "Pipeline": "neva_recipes.pipeline",
    "PipelineJob": "executors.pipelines.planning",
    "Point": "neva_recipes.run_directory.metrics",
    "RefusedError": "executors.base",
    "Results": "executors.runs.results",
    "Run": "executors.runs.run",
    "RunStatus": "executors.runs.standing",
    "SlurmExecutor": "executors.slurm.executor",
    "Stage": "neva_recipes.pipeline",
    "State": "neva_recipes.run_directory.state",
    "TokenizeText": "neva_recipes.pipeline",
    "TrainTokenizer": "neva_recipes.pipeline",
    "disk_finding": "executors.disk",
    "find_executor": "executors.registry",
    "find_leftovers": "executors.runs.cleanup",
    "find_run": "executors.runs.finding",
    "find_runs": "executors.runs.finding",
    "is_pattern": "executors.runs.paths",
    "job_of": "executors.launch",
    "list_runs": "executors.runs.finding",
    "plan_job": "executors.launch",
    "plan_pipeline": "executors.pipelines.planning",
    "read_state": "neva_recipes.run_directory.state",
    "remove_leftovers": "executors.runs.cleanup",
    "require_single": "executors.pipelines.single",
    "resume_pipeline": "executors.pipelines.resume",
    "run": "executors.launch",
    "run_directory_script": "executors.script",
    "run_pipeline": "executors.pipelines.launch",
    "settle": "executors.settling",
    "start_job": "executors.launch",
    "start_pipeline": "executors.pipelines.launch",
    "with_named_runs": "executors.settling",
    "write_state": "neva_recipes.run_directory.state",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
