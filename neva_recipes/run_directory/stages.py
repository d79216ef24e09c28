"""The paths of a pipeline's stages: NAME-TIME/stages/STAGE, beside pipeline.json, which lists the stages."""

import shlex
from pathlib import Path

from neva_recipes.run_directory.layout import JOB_FILE

__all__ = [
    "PIPELINE_FILE",
    "STAGES",
    "TOOL_FILE",
    "pipeline_of",
    "run_reference",
    "run_title",
    "stage_directories",
    "stage_directory",
    "stage_name",
]

PIPELINE_FILE = "pipeline.json"

STAGES = "stages"
"""Folder of a pipeline's directory that holds the run directories of its stages."""

TOOL_FILE = "tool.json"
"""File of a stage that runs a tool: its program and arguments."""


def stage_directory(pipeline: Path, stage: str) -> Path:
    """Return the run directory of a stage.

    Args:
        pipeline: Directory of the pipeline.
        stage: Name of the stage, or a pattern of names.
    """
    return pipeline / STAGES / stage


def stage_directories(pipeline: Path) -> list[Path]:
    """Return the run directories of the stages of a pipeline, sorted by name; empty for any other run."""
    return sorted(file.parent for file in pipeline.glob(f"{STAGES}/*/{JOB_FILE}"))


def pipeline_of(run_directory: Path) -> Path | None:
    """Return the directory of the pipeline that a run is a stage of; `None` if it is no stage."""
    folder = run_directory.parent
    return folder.parent if folder.name == STAGES and (folder.parent / PIPELINE_FILE).is_file() else None


def run_title(run_directory: Path) -> str:
    """Return the name of a run in messages and commands: RUN, or PIPELINE/STAGE for a stage.

    Args:
        run_directory: Its run directory.
    """
    pipeline = pipeline_of(run_directory)
    return run_directory.name if pipeline is None else f"{pipeline.name}/{run_directory.name}"


def run_reference(run_directory: Path, stage: str = "") -> str:
    """Return the reference to a run for the next command, ready for a shell: its name, or its path if it is elsewhere.

    Args:
        run_directory: Its run directory.
        stage: The stage of the run that is meant, if any.
    """
    if not stage and (pipeline := pipeline_of(run_directory)) is not None:
        run_directory, stage = pipeline, run_directory.name
    name = run_directory.name if run_directory.parent == Path("runs").resolve() else str(run_directory)
    return shlex.quote(f"{name}/{stage}" if stage else name)


def stage_name(run_directory: Path) -> str | None:
    """Return the name of the stage that a run directory belongs to; `None` if it belongs to no pipeline."""
    return None if pipeline_of(run_directory) is None else run_directory.name
