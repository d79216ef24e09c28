"""The files of a run directory.

NAME-TIME/
    recipe.yaml      the recipe; recipe.1.yaml, ... are those before the run was resumed with another
    plan.json        its plan
    job.json         command, executor and code version; this file makes a directory a run
    launch.sh        starts the run again by hand
    state.json       its state
    failure.json     the failure that a rank has reported
    logs/            joined.log, and one file for each rank
    metrics/         metrics.csv, and the files for TensorBoard
    checkpoints/     step-00000010, ...
    evaluation.json  the newest evaluation of its model, with predictions.jsonl; evaluations/ has all of them
    data_cache/      what is known of its data files; made anew if it is missing
    .lock            locked by whoever starts the run, until it has ended
"""

from pathlib import Path

__all__ = [
    "CHECKPOINTS",
    "DATA_CACHE",
    "EVALUATIONS",
    "EVALUATION_FILE",
    "FAILURE_FILE",
    "JOB_FILE",
    "LAUNCH_FILE",
    "LOCK_FILE",
    "LOGS",
    "METRICS",
    "PLAN_FILE",
    "PREDICTIONS_FILE",
    "RECIPE_FILE",
    "STATE_FILE",
    "joined_log",
    "launcher_log",
    "metrics_file",
    "rank_log",
]

RECIPE_FILE = "recipe.yaml"
PLAN_FILE = "plan.json"
JOB_FILE = "job.json"
LAUNCH_FILE = "launch.sh"
STATE_FILE = "state.json"
FAILURE_FILE = "failure.json"
LOGS = "logs"
METRICS = "metrics"
CHECKPOINTS = "checkpoints"
EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.jsonl"
EVALUATIONS = "evaluations"
DATA_CACHE = "data_cache"
LOCK_FILE = ".lock"


def joined_log(run_dir: Path) -> Path:
    """Return the file that holds the lines of all ranks."""
    return run_dir / LOGS / "joined.log"


def rank_log(run_dir: Path, rank: int) -> Path:
    """Return the file that holds the lines of one rank."""
    return run_dir / LOGS / f"rank-{rank}.log"


def launcher_log(run_dir: Path) -> Path:
    """Return the file that holds the output of a launcher that starts the ranks."""
    return run_dir / LOGS / "launcher.log"


def metrics_file(run_dir: Path) -> Path:
    """Return the file of the logged metrics: a line for each step, a column for each metric."""
    return run_dir / METRICS / "metrics.csv"
