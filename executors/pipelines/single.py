"""Refuses a pipeline or sweep where a single run is needed."""

import shlex
from pathlib import Path

from executors.pipelines.spec import StageSpec, is_pipeline, read_spec
from neva_recipes.config import RunError
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.stages import stage_directory

__all__ = ["require_single"]

_NAMED = 5


def require_single(run_dir: Path, word: str) -> None:
    """Check that a run is no pipeline and no sweep.

    Args:
        run_dir: Directory of the run.
        word: The name that the user typed; the error lists the runs in the same form.

    Raises:
        RunError: It is a pipeline or a sweep.
    """
    if not is_pipeline(run_dir):
        return
    stages = read_spec(run_dir).stages
    # Only stages that train have a model.
    trained = [stage for stage in stages if (stage_directory(run_dir, stage.name) / RECIPE_FILE).is_file()]
    stages = tuple(trained) or stages
    is_sweep = any(stage.settings for stage in stages)
    names = [_typed(word, stage) for stage in stages[:_NAMED]]
    more = f" (and {len(stages) - _NAMED} more: nemo-run status {shlex.quote(word)})" if len(stages) > _NAMED else ""
    what, part = ("a sweep", "points") if is_sweep else ("a pipeline", "stages")
    raise RunError(f"{word}: is {what}: name one of its {part}: {', '.join(names)}{more}")


def _typed(word: str, stage: StageSpec) -> str:
    settings = " ".join(f"{name}={value}" for name, value in stage.settings.items())
    return shlex.quote(f"{word}/{stage.name}") + (f" ({settings})" if settings else "")
