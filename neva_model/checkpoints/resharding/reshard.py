"""Writes a checkpoint as another layout would have saved it: no process group, and one weight at a time in memory."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from neva_model.checkpoints.huggingface import is_huggingface_directory
from neva_model.checkpoints.information import read_information, saved_recipe, with_newest
from neva_model.checkpoints.layout import require_layout
from neva_model.checkpoints.resharding.rewriting import (
    copy_files,
    moved,
    object_readers,
    of_one_replica,
    recorded,
    write_stored,
)
from neva_model.checkpoints.weights import Written, all_stored
from neva_recipes.config import CheckpointError, Recipe, draft_of, recipe_to_yaml
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.storage.exports import require_new_directory
from neva_recipes.storage.tensors import OPTIMIZER
from neva_recipes.storage.whole import written_whole

__all__ = ["Resharded", "reshard"]


@dataclass(frozen=True)
class Resharded:
    """What has been written.

    Attributes:
        source: The checkpoint that it was made of.
        has_optimizer: Whether it has the state of the optimizer.
    """

    source: Path
    has_optimizer: bool


def reshard(source: Path, target: Path, tp: int, pp: int, *, weights_only: bool = False) -> Resharded:
    """Write a checkpoint as one replica of another layout would have saved it.

    Args:
        source: A run or a checkpoint.
        target: The directory to write; must not exist yet. It gets its name only when it is complete.
        tp: Tensor-parallel size.
        pp: Pipeline-parallel size.
        weights_only: Leave out what only the run needs that saved it: the optimizer, random states, counters.

    Raises:
        CheckpointError: The checkpoint is damaged or has this layout already, or the target exists or cannot be
            written.
        RecipeError: The layout does not divide the model.
    """
    require_new_directory(target)
    if is_huggingface_directory(source):
        raise CheckpointError(f"{source}: is a Hugging Face directory: nemo-run convert makes a checkpoint of it")
    return with_newest(source, lambda found: _reshard(found, target, tp, pp, weights_only=weights_only))


def _reshard(source: Path, target: Path, tp: int, pp: int, *, weights_only: bool) -> Resharded:
    information, saved = read_information(source), saved_recipe(source)
    recipe = _laid_out(saved, tp, pp)
    record = recorded(information, recipe)
    if record == information and recipe.parallel == saved.parallel and not weights_only:
        raise CheckpointError(f"{source}: is laid out as TP{tp} x PP{pp} already")
    stored = all_stored(source, saved)
    if weights_only:
        stored = {prefix: state for prefix, state in stored.items() if not prefix.startswith(OPTIMIZER)}
    parts = [Written(state, state.names, prefix) for prefix, state in stored.items()]
    with written_whole(target, "directory") as unfinished:
        recipe = moved(recipe, source, target)
        write_stored(parts, recipe, unfinished, {} if weights_only else object_readers(source))
        copy_files(source, unfinished, with_values=not weights_only)
        (unfinished / RECIPE_FILE).write_text(recipe_to_yaml(draft_of(recipe)), encoding="utf-8")
        record.write(unfinished)
    return Resharded(source, any(prefix.startswith(OPTIMIZER) for prefix in stored))


def _laid_out(saved: Recipe, tp: int, pp: int) -> Recipe:
    """Return a recipe for one replica of a layout.

    Raises:
        RecipeError: The layout does not divide the model.
    """
    parallel = dataclasses.replace(
        saved.parallel,
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        num_layers_in_first_pipeline_stage=None,
        num_layers_in_last_pipeline_stage=None,
    )
    recipe = of_one_replica(saved, parallel)
    require_layout(recipe)
    return recipe
