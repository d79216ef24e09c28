"""What the stages of a pipeline take from each other, and the order in which they may be started."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from executors.pipelines.spec import StageSpec, read_spec
from executors.pipelines.tool_stage import saved_tool
from executors.runs.standing import Standing, ask_together
from neva_recipes.config import Draft, Recipe, RunError, UserError, iterate_fields, load_recipe
from neva_recipes.run_directory.layout import CHECKPOINTS, RECIPE_FILE
from neva_recipes.run_directory.metrics import trained_steps
from neva_recipes.run_directory.names import list_checkpoints
from neva_recipes.run_directory.stages import (
    STAGES,
    TOOL_FILE,
    pipeline_of,
    run_reference,
    run_title,
    stage_directory,
)
from neva_recipes.run_directory.state import UNDER_WAY

__all__ = ["StageEnd", "first_resumed", "input_stages", "older_stages", "require_inputs", "unfinished_inputs"]


class StageEnd(NamedTuple):
    """How a stage stands.

    Attributes:
        state: State of its run.
        ended: When its processes had ended; `None` before.
    """

    state: str
    ended: datetime | None


def input_stages(run_dir: Path, recipe: Draft[Recipe] | None = None) -> list[str]:
    """Return the names of the stages whose output a stage takes.

    A checkpoint that it names itself is none of them: that stays what it is, however far its run goes.

    Args:
        run_dir: Run directory of the stage.
        recipe: Its recipe; `None` for what its directory says.

    Raises:
        RecipeError: Its recipe cannot be read.
        RunError: Its tool cannot be read.
    """
    pipeline = pipeline_of(run_dir)
    if pipeline is None:
        return []
    if recipe is None:
        is_tool = not (run_dir / RECIPE_FILE).is_file()
        work: Any = saved_tool(run_dir) if is_tool else load_recipe(run_dir / RECIPE_FILE)
    else:
        work = recipe
    names = (_output_of(pipeline, path) for field in iterate_fields(work) for path in _paths(field.value))
    return [name for name in dict.fromkeys(names) if name is not None and name != run_dir.name]


def _paths(value: object) -> Iterator[Path]:
    values = value if isinstance(value, list | tuple) else [value]
    yield from (Path(text) for text in values if isinstance(text, str) and text.startswith("/"))


def _output_of(pipeline: Path, path: Path) -> str | None:
    """Return the stage of a pipeline, which may have been moved, whose output a path is."""
    parts = path.parts
    for place in range(len(parts) - 2):
        if parts[place : place + 2] == (pipeline.name, STAGES):
            name, below = parts[place + 2], parts[place + 3 :]
            is_output = not below or (stage_directory(pipeline, name) / TOOL_FILE).is_file()
            return name if is_output else None
    return None


def unfinished_inputs(run_dir: Path, recipe: Draft[Recipe] | None = None) -> list[Path]:
    """Return the directories of stages that must still be done before a stage has what it takes, in their order.

    Args:
        run_dir: Run directory of the stage.
        recipe: Its recipe; `None` for what its directory says.

    Raises:
        RecipeError: A recipe cannot be read.
        RunError: A file of a stage cannot be read.
    """
    found: dict[Path, None] = {}
    for name in input_stages(run_dir, recipe):
        path = run_dir.parent / name
        if path.is_dir():
            found |= dict.fromkeys(unfinished_inputs(path))
            if Standing(path).state().state != "succeeded":
                found[path] = None
    return list(found)


def older_stages(pipeline: Path, specs: Sequence[StageSpec], ends: Mapping[str, StageEnd]) -> dict[str, str]:
    """Return the stages that have succeeded, or have a checkpoint to go on from, with an input that is newer.

    Args:
        pipeline: Directory of the pipeline.
        specs: Its stages, each after those it waits for.
        ends: How each stands, by name.

    Returns:
        By name of the stage, one whose output it takes and that was not done when it ended, or has gone on since.
    """
    older: dict[str, str] = {}
    before: dict[str, set[str]] = {}
    for spec in specs:
        before[spec.name] = {name for other in spec.after for name in (other, *before[other])}
        path, end = stage_directory(pipeline, spec.name), ends[spec.name]
        has_begun = end.state == "succeeded" or (end.ended is not None and list_checkpoints(path / CHECKPOINTS))
        newer = [name for name in before[spec.name] if has_begun and (name in older or _is_newer(ends[name], end))]
        if newer:  # the recipe is read only where it matters
            try:
                taken = input_stages(path)
            except UserError:  # it is begun anew then, which reports that it cannot be read
                taken = newer
            if (older_than := next((name for name in taken if name in newer), None)) is not None:
                older[spec.name] = older_than
    return older


def _is_newer(end: StageEnd, later: StageEnd) -> bool:
    """Return whether the output of a stage is not yet, or no longer, the one that a later stage has taken."""
    return end.state != "succeeded" or (end.ended is not None and later.ended is not None and end.ended > later.ended)


def require_inputs(run_dir: Path, recipe: Draft[Recipe] | None = None) -> None:
    """Check that a stage that is started by itself has what it takes from other stages, as they are now.

    Args:
        run_dir: A run directory, which need not be that of a stage.
        recipe: The recipe that it is to be started with; `None` for what its directory says.

    Raises:
        RecipeError: A recipe cannot be read.
        RunError: It would begin with what another stage has not finished, or go on with what another one has left
            behind since.
    """
    try:
        inputs = input_stages(run_dir, recipe)
    except RunError:  # a tool of an older version, which did not keep what it takes
        return
    if not inputs:
        return
    if not list_checkpoints(run_dir / CHECKPOINTS):
        if unfinished := unfinished_inputs(run_dir, recipe):
            raise _unfinished(run_dir, unfinished)
        return
    pipeline = pipeline_of(run_dir)
    assert pipeline is not None  # only a stage takes what other stages make
    specs = read_spec(pipeline).stages
    standings = {spec.name: Standing(stage_directory(pipeline, spec.name)) for spec in specs}
    ask_together(standings.values())
    ends = {name: _end(standing) for name, standing in standings.items()}
    older_than = older_stages(pipeline, specs, ends).get(run_dir.name)
    if older_than in inputs:
        raise RunError(
            f"run {run_title(run_dir)} has begun with {older_than} as it was before that went on: "
            f"nemo-run resume {run_reference(pipeline)} begins it anew; --from goes on from a checkpoint that it has"
        )


def _end(standing: Standing) -> StageEnd:
    state = standing.state()
    return StageEnd(state.state, datetime.fromisoformat(state.ended).astimezone() if state.ended else None)


def first_resumed(unfinished: Sequence[Path]) -> str:
    """Return the commands that finish stages, in their order."""
    return ", then ".join(f"nemo-run resume {run_reference(path)}" for path in unfinished)


def _unfinished(run_dir: Path, unfinished: Sequence[Path]) -> RunError:
    """Return the error for a stage that would begin with what is not done."""
    last = unfinished[-1]
    state, step = Standing(last).state().state, trained_steps(last)
    checkpoint = next(reversed(list_checkpoints(last / CHECKPOINTS)), None)
    far = "" if step is None else f" at step {step}"
    todo = f"first {first_resumed(unfinished)}"
    if state in UNDER_WAY:
        todo = f"wait until it has ended, which nemo-run status {run_reference(last)} shows"
    meant = f", or name its newest checkpoint, {checkpoint}, in place of its run" if checkpoint is not None else ""
    return RunError(f"run {run_title(run_dir)} begins with {last.name}, which is not done: {state}{far}; {todo}{meant}")
