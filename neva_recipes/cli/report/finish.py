"""What a command says at its end about the run that it has started."""

import os
import shlex
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neva_recipes.config import Recipe, UserError, build, load_recipe
from neva_recipes.run_directory.layout import CHECKPOINTS, METRICS, RECIPE_FILE, metrics_file
from neva_recipes.run_directory.metrics import TRAIN_LOSS, VAL_LOSS, trained_steps
from neva_recipes.run_directory.names import list_checkpoints, listed_step
from neva_recipes.run_directory.stages import run_reference, run_title, stage_directories
from neva_recipes.run_directory.state import read_state
from neva_recipes.storage.best import best_checkpoint
from neva_recipes.table import folded_command
from neva_recipes.terminal import print_line, streams_are_one, tell

if TYPE_CHECKING:
    from executors import Run

__all__ = ["finish", "next_lines", "reference", "stopped_line"]

_MOST_NAMES = 4

_LAST_LINES = 5
"""Number of lines at the end of a log that are still visible when the command ends."""


def reference(run: "Run", stage: str = "") -> str:
    """Return the reference to a run for the next command, ready for a shell: its name, or its path if it is elsewhere.

    Args:
        run: The run.
        stage: The stage of the run that is meant, if any.
    """
    return run_reference(run.path, stage)


def next_lines(run: "Run") -> list[str]:
    """Return commands for a run that has succeeded; nothing for output that it does not have.

    If something cannot be read, a line says so; the run is still a success.
    """
    from executors.pipelines.spec import is_pipeline

    try:
        return _of_pipeline(run) if is_pipeline(run.path) else _of_run(run)
    except (UserError, OSError) as error:
        return [f"what can be done next is not known: {error}"]


def _of_run(run: "Run") -> list[str]:
    name, lines = reference(run), _model_lines(run, reference(run))
    if metrics_file(run.path).exists():
        lines.append(f"nemo-run plot {name}")
    if any((run.path / METRICS).glob("events.*")):
        lines.append(f"tensorboard --logdir {shlex.quote(os.path.relpath(run.path.parent))}")
    return _listed("next:", lines) + _best_lines(run)


def _model_lines(run: "Run", name: str, exports: Sequence[Path] = ()) -> list[str]:
    """Return commands that use the model of a run.

    Args:
        run: The run.
        name: The reference to it in a command.
        exports: Folders that its model has been exported to.
    """
    if run.newest_checkpoint() is None or not (run.path / RECIPE_FILE).is_file():
        return []
    from neva_recipes.cli.report.second_stage import second_stage  # help and list import this module, and no plan
    from neva_recipes.plan.huggingface import why_not_exportable

    recipe: Recipe = build(load_recipe(run.path / RECIPE_FILE))
    lines = [f"nemo-run chat {name}{' --image FILE' if recipe.model.vision is not None else ''}"]
    # Captions and plain text are not questions.
    if getattr(recipe.data, "conv_template", "plain") != "plain":
        lines.append(f"nemo-run evaluate {name} --data FILE")
    if not exports and why_not_exportable(recipe) is None:
        lines.append(f"nemo-run export {name} DIR")
    return [*lines, *folded_command(second_stage(recipe, name)).splitlines()]


def _of_pipeline(run: "Run") -> list[str]:
    """Return commands for the model of the last stage that trains, or of the best point of a sweep."""
    from executors import Export
    from executors.pipelines.directory import stage_run
    from executors.pipelines.spec import read_spec

    specs = read_spec(run.path).stages
    stages = [stage_run(run.path, stage.name) for stage in specs]
    made = [stage.path / Export.output for stage in stages]
    exports = [path for path in made if path.is_dir()]
    trained = [stage for stage in stages if stage.newest_checkpoint() is not None]
    lowest: list[str] = []
    if any(stage.settings for stage in specs):
        trained, lowest = _best_point(run, trained)
    lines = _model_lines(trained[-1], reference(run, trained[-1].name), exports) if trained else []
    if any(metrics_file(stage.path).exists() for stage in stages):
        lines.append(f"nemo-run plot {reference(run)}")
    return [
        *_listed("next:", lines),
        *_listed("exported:", [shlex.quote(os.path.relpath(path)) for path in exports]),
        *lowest,
    ]


def _best_point(run: "Run", points: "Sequence[Run]") -> "tuple[list[Run], list[str]]":
    """Return the point of a sweep with the lowest loss, if known, and a line that names this loss."""
    metrics = {point: point.metrics() for point in points}
    for metric, meaning in ((VAL_LOSS, "val loss"), (TRAIN_LOSS, "train loss")):
        losses = {point: found[metric].last.value for point, found in metrics.items() if metric in found}
        if losses:
            best = min(losses, key=losses.__getitem__)
            return [best], [f"{run_title(best.path)} has the lowest {meaning} at its end, {losses[best]:.4f}"]
    return [], []


def _best_lines(run: "Run") -> list[str]:
    """Return where the best checkpoint is, if it is not the newest one, which commands take by default."""
    found, newest = best_checkpoint(run.path), run.newest_checkpoint()
    if found is None or found[0] == newest:
        return []
    path = shlex.quote(os.path.relpath(found[0]))
    return _listed(f"{found[0].name} has the lowest val loss, {found[1]:.4f}:", [path])


def _listed(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []


def finish(run: "Run", detached: bool) -> int:
    """Print the state of a run that was started, and return the exit code of the command."""
    if detached:
        stands = "is queued:" if read_state(run.path).state == "queued" else "runs in"
        print_line(
            f"{run_title(run.path)} {stands} {run.path}; nemo-run logs -f {reference(run)} follows it", sys.stdout
        )
        return 0
    code, status = run.wait(), run.status()
    if code == 0:
        print_line(f"{run_title(run.path)} {status.state}: {run.path}", sys.stderr)
        if (above := run.results().above_guessing) is not None:
            tell("warning", f"{run_title(run.path)}: {above.line}")
        for line in next_lines(run):
            print_line(line, sys.stderr)
    elif status.state == "succeeded":
        tell("error", f"run {run_title(run.path)} {status.reason}; it is as it was: succeeded")
    elif status.state == "cancelled":
        print_line(stopped_line(run), sys.stderr)
    else:
        tell("error", f"run {run_title(run.path)} {status.state}: {_why(run, status.reason)}")
    return code


def stopped_line(run: "Run", *, with_reason: bool = True) -> str:
    """Return the state of a run that has ended; if it was cancelled, also how to resume it and from which step."""
    status = run.status()
    head = f"{run_title(run.path)} {status.state}{f': {status.reason}' if with_reason and status.reason else ''}"
    way_on = _way_on(run, status.step) if status.state == "cancelled" else None
    return head if way_on is None else f"{head}; {way_on}"


def _way_on(run: "Run", step: int | None) -> str | None:
    """Return how to resume a run that was stopped, and from which step; `None` if it cannot be resumed.

    Args:
        run: The run.
        step: The last step it has trained; `None` before the first one.
    """
    from executors.pipelines.spec import is_pipeline
    from executors.runs.references import owner_of

    if not (run.path / RECIPE_FILE).is_file():
        pipeline = run if is_pipeline(run.path) else owner_of(run)
        if pipeline is None:
            return None
        return "; ".join([f"nemo-run resume {reference(pipeline)} goes on with it", *_begin_anew(run.path)])
    command, newest = f"nemo-run resume {reference(run)}", run.newest_checkpoint()
    if newest is None:
        return f"it has saved no checkpoint yet, and {command} begins anew"
    saved = listed_step(newest)
    start = f"{command} goes on from step {saved}"
    if step is None:
        return start
    return f"{start}, the last that it has trained" if saved >= step else f"{start} of the {step} that it has trained"


def _begin_anew(pipeline: Path) -> list[str]:
    """Return a line about the stages of a pipeline that have trained in vain: without a checkpoint; else nothing."""
    anew = [
        run_title(stage)
        for stage in stage_directories(pipeline)
        if trained_steps(stage) is not None and not list_checkpoints(stage / CHECKPOINTS) and not _has_succeeded(stage)
    ]
    if len(anew) < 2:
        return [f"{name} has saved no checkpoint yet, and begins anew" for name in anew]
    named = ", ".join(anew) if len(anew) <= _MOST_NAMES else f"{len(anew)} of its stages"
    return [f"{named} have saved no checkpoint yet, and begin anew"]


def _has_succeeded(run_directory: Path) -> bool:
    try:
        return read_state(run_directory).state == "succeeded"
    except (OSError, ValueError):  # status tells of a damaged state
        return False


def _ends(run: "Run", reason: str) -> list[str]:
    """Return the ends of the lines that tell why a run has failed; of a pipeline, they tell it of its stages."""
    from executors.pipelines.directory import NOT_RUN, stage_statuses
    from executors.pipelines.spec import is_pipeline

    if not is_pipeline(run.path):
        return [f"error: {reason}"]
    failed = [stage for stage in stage_statuses(run.path, goes_on=False) if stage.is_lost and stage.state != NOT_RUN]
    told = [f": {stage.status.reason}" for stage in failed if stage.status.reason]
    # A pipeline may also fail by itself, for a reason that is none of its stages'.
    is_of_stages = told and all(f"{stage.name} {stage.state}" in reason for stage in failed)
    return told if is_of_stages else [f"error: {reason}"]


def _why(run: "Run", reason: str | None) -> str | None:
    """Return the reason, or where it stands if the last lines of the log, which have just been printed, give it.

    Standard error in a place of its own always gets the reason.
    """
    is_piped = sys.stderr.isatty() and stat.S_ISFIFO(os.fstat(1).st_mode)
    if reason is None or not (is_piped or streams_are_one()):
        return reason
    last = tuple(run.logs(tail=_LAST_LINES))
    if not all(any(line.endswith(end) for line in last) for end in _ends(run, reason)):
        return reason
    # What reads a pipe may keep the lines from the terminal, as grep does.
    again = f", and nemo-run logs {reference(run)} --tail {_LAST_LINES} shows them" if is_piped else ""
    return f"its last lines say why{again}"
