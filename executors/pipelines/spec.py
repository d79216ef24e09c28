"""pipeline.json: the stages of a pipeline and their dependencies."""

import json
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import PlainTable, RunError
from neva_recipes.run_directory.stages import PIPELINE_FILE
from neva_recipes.run_directory.state import read_json

__all__ = ["PipelineSpec", "StageSpec", "is_pipeline", "read_spec"]


@dataclass(frozen=True)
class StageSpec:
    """A stage as pipeline.json holds it.

    Attributes:
        name: Its name.
        after: Names of the stages it waits for.
        settings: In a sweep, the fields that vary, with their values.
    """

    name: str
    after: tuple[str, ...]
    settings: dict[str, str]


@dataclass(frozen=True)
class PipelineSpec:
    """Content of pipeline.json.

    Attributes:
        name: Name of the pipeline.
        parallel: How many stages may run at once.
        stages: The stages, each after the stages it waits for.
    """

    name: str
    parallel: int
    stages: tuple[StageSpec, ...]

    def to_json(self) -> str:
        """Return the text of pipeline.json."""
        stages = [{"name": stage.name, "after": list(stage.after), "settings": stage.settings} for stage in self.stages]
        record = {"schema": 1, "name": self.name, "parallel": self.parallel, "stages": stages}
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def is_pipeline(run_dir: Path) -> bool:
    """Return whether a run directory belongs to a pipeline or a sweep."""
    return (run_dir / PIPELINE_FILE).is_file()


def read_spec(run_dir: Path) -> PipelineSpec:
    """Return the content of pipeline.json in a directory.

    Raises:
        RunError: It is missing or not of the form that `PipelineSpec.to_json` writes.
    """
    path = run_dir / PIPELINE_FILE
    try:
        record: PlainTable = read_json(path)
        if record["schema"] != 1:
            raise ValueError(f"schema {record['schema']!r}, expected 1")
        stages = tuple(StageSpec(entry["name"], tuple(entry["after"]), entry["settings"]) for entry in record["stages"])
        return PipelineSpec(record["name"], record["parallel"], stages)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read as the stages of a pipeline: {error}") from None
