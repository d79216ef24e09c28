"""Writes a checkpoint out of what another one holds."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from neva_model.checkpoints.information import CheckpointInformation
from neva_model.checkpoints.weights import VALUES_FILE, Written, weight_shapes, write_checkpoint, write_without_values
from neva_model.progress import ByteProgress
from neva_recipes.config import ParallelConfig, Recipe
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.names import DESCRIPTIONS, INFORMATION_FILE, is_shard
from neva_recipes.storage.digests import files_below
from neva_recipes.storage.tensors import checkpoint_objects, is_random_state
from neva_recipes.storage.whole import copy_file, reading_errors

__all__ = ["copy_files", "moved", "object_readers", "of_one_replica", "recorded", "write_stored"]

_OWN = {INFORMATION_FILE, RECIPE_FILE, ".metadata"}
"""Files that every checkpoint has of its own."""


def write_stored(
    parts: Collection[Written], recipe: Recipe, folder: Path, objects: Mapping[str, Callable[[], bytes]]
) -> None:
    """Write tensors under the layout of a recipe, and show the progress.

    Args:
        parts: What is written for the weights.
        recipe: The recipe.
        folder: The folder to write into.
        objects: Reads what is no tensor, by its name.

    Raises:
        OSError: A file cannot be written.
        CheckpointError: A weight cannot be read.
    """
    shapes = weight_shapes(recipe.model)
    total = sum(math.prod(shapes[name]) * part.weights.dtype(name).itemsize for part in parts for name in part.names)
    write_checkpoint(parts, recipe, folder, ByteProgress(total).add, objects)


def object_readers(checkpoint: Path) -> dict[str, Callable[[], bytes]]:
    """Return a reader for each thing in a checkpoint that is no tensor, but for random states.

    Raises:
        CheckpointError: The table of the checkpoint is damaged.
    """
    places = checkpoint_objects(checkpoint)
    return {
        name: partial(_bytes_of, checkpoint / file, begin, length)
        for name, (file, begin, length) in places.items()
        if not is_random_state(name)  # it belongs to the rank that has saved it
    }


def _bytes_of(path: Path, begin: int, length: int) -> bytes:
    with reading_errors(path), path.open("rb") as file:
        file.seek(begin)
        return file.read(length)


def copy_files(source: Path, target: Path, *, with_values: bool) -> None:
    """Copy what a checkpoint has beside its tensors: what a converted one keeps, values that are no tensors.

    Args:
        source: The checkpoint.
        target: The folder that is being written.
        with_values: Whether values that are no tensors, such as the step of the optimizer, come along.

    Raises:
        OSError: A file cannot be read or written.
    """
    for name, path in files_below(source).items():
        if not is_shard(name) and name not in _OWN and (with_values or name != VALUES_FILE):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy_file(path, target / name)
    if not with_values:
        write_without_values(target)


def moved(recipe: Recipe, source: Path, target: Path) -> Recipe:
    """Return a recipe whose paths into the kept files of a converted checkpoint lead to those of another one."""
    old, new = source.absolute() / DESCRIPTIONS, target.absolute() / DESCRIPTIONS

    def there(value: str | None) -> str | None:
        path = None if value is None else Path(value)
        return str(new / path.relative_to(old)) if path is not None and path.is_relative_to(old) else value

    vision = recipe.model.vision
    if vision is not None:
        vision = dataclasses.replace(vision, from_pretrained=there(vision.from_pretrained))
    model = dataclasses.replace(recipe.model, vision=vision)
    data = dataclasses.replace(recipe.data, tokenizer=there(recipe.data.tokenizer))
    return dataclasses.replace(recipe, model=model, data=data)


def of_one_replica(recipe: Recipe, parallel: ParallelConfig) -> Recipe:
    """Return a recipe for one replica of a layout: no context parallelism, and stages of consecutive layers."""
    parallel = dataclasses.replace(parallel, virtual_pipeline_model_parallel_size=None, context_parallel_size=1)
    if parallel.tensor_model_parallel_size == 1:
        parallel = dataclasses.replace(parallel, sequence_parallel=False)
    devices = parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size
    trainer = dataclasses.replace(recipe.trainer, num_nodes=1, devices=devices)
    return dataclasses.replace(recipe, parallel=parallel, trainer=trainer)


def recorded(information: CheckpointInformation, recipe: Recipe) -> CheckpointInformation:
    """Return the information of a checkpoint, with the layout of a recipe for one replica."""
    parallel = recipe.parallel
    return dataclasses.replace(
        information,
        world_size=parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size,
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        context_parallel_size=1,
        virtual_pipeline_model_parallel_size=1,
    )
