"""The trainings that the weights of a recipe have had: its own, and those of the runs it starts from."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import Recipe, RecipeError, build, expand_path, load_recipe, path_is
from neva_recipes.plan.origins.checkpoints import PARTS, find_run_directory, is_checkpoint
from neva_recipes.run_directory.layout import CHECKPOINTS, JOB_FILE, PLAN_FILE, RECIPE_FILE
from neva_recipes.run_directory.names import earlier_recipes, list_checkpoints
from neva_recipes.run_directory.state import read_json, read_state
from neva_recipes.storage.exports import exported_checkpoint

__all__ = ["Moments", "RecipesOf", "Training", "earlier_trainings", "moments_of_run", "recipes_of_run"]

RecipesOf = Callable[[str], Sequence[Recipe]]
"""Returns the recipes of a run, oldest first, from its directory or one of its checkpoints; empty for other paths."""


class Training(NamedTuple):
    """An earlier training of weights.

    Attributes:
        part: The part of the model that comes from it: language, vision or projector.
        source: The run or checkpoint.
        recipe: A recipe it was trained with.
    """

    part: str
    source: str
    recipe: Recipe


def recipes_of_run(source: str) -> Sequence[Recipe]:
    """Return the recipes that a local run has had, oldest first, without those that cannot be read.

    Args:
        source: The directory of a run or of one of its checkpoints, or an export, which stands for the run that it was
            made from if that still exists. Any other path has no recipes.
    """
    run = _run_of(source)
    recipes: list[Recipe] = []
    for file in [] if run is None else [*earlier_recipes(run), run / RECIPE_FILE]:
        try:
            recipes.append(build(load_recipe(file)))
        except RecipeError:
            continue  # loading the run's weights reports it
    return recipes


class Moments(NamedTuple):
    """When a run was first planned, and when the last attempt that trained a checkpoint started, in seconds since 1970.

    An attempt that has saved no later checkpoint has trained nothing of it: then `started` is when it was saved.
    """

    planned: float
    started: float


def moments_of_run(source: str) -> Moments | None:
    """Return when a local run was planned and started; `None` if there is no such run.

    Args:
        source: As for `recipes_of_run`; a run stands for its newest checkpoint.
    """
    run = _run_of(source)
    try:
        planned = None if run is None else (run / PLAN_FILE).stat().st_mtime
    except OSError:
        return None
    if run is None or planned is None:
        return None
    ends = [planned]
    with contextlib.suppress(OSError, ValueError):
        state = read_state(run)
        ends = ends if state.started is None else [_seconds(state.started)]
        if state.attempt > 1:  # a resume with other fields writes the plan anew
            planned = min(planned, _first_planned(run) or planned)
    with contextlib.suppress(OSError):
        ends += [(checkpoint / RECIPE_FILE).stat().st_mtime for checkpoint in _checkpoint_of(source, run)]
    return Moments(planned, min(ends))


def _first_planned(run: Path) -> float | None:
    """Return when a run was planned before any resume, in seconds since 1970; `None` if its job.json is damaged."""
    try:
        return _seconds(read_json(run / JOB_FILE)["created"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _checkpoint_of(source: str, run: Path) -> list[Path]:
    """Return the checkpoint that a source of weights means, if there is one."""
    path = expand_path(source)
    checkpoint = exported_checkpoint(path) or path
    return [checkpoint] if is_checkpoint(checkpoint) else list_checkpoints(run / CHECKPOINTS)[-1:]


def _run_of(source: str) -> Path | None:
    path = expand_path(source)
    return find_run_directory(exported_checkpoint(path) or path) if path_is(path, Path.is_dir) else None


def earlier_trainings(recipe: Recipe, recipes_of: RecipesOf) -> Iterator[Training]:
    """Yield the earlier trainings of each part of a recipe's model, part by part.

    A run in which a part was frozen has not trained it, but may have it from a run that has.

    Args:
        recipe: The recipe.
        recipes_of: Returns the recipes of a run.
    """
    for part in PARTS:
        config, seen = getattr(recipe.model, part), set[str]()
        while config is not None and config.source is not None and config.source not in seen:
            source = config.source
            seen.add(source)  # runs may name each other
            recipes = recipes_of(source)
            for each in recipes:
                there = getattr(each.model, part)
                if there is not None and there.trains:
                    yield Training(part, source, each)
            # The first recipe names the source of the weights; a resumed run may have had others.
            config = getattr(recipes[0].model, part) if recipes else None
