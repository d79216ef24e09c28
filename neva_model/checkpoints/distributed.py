"""Sharded checkpoints on disk: written whole or not at all, read with one clear line when something is wrong."""

import pickle
import queue
import shutil
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.strategies import filesystem_async
from torch.distributed.checkpoint.api import CheckpointException

from neva_model.checkpoints.information import (
    RECIPE_FILE,
    CheckpointInformation,
    list_checkpoints,
    read_information,
)
from neva_recipes.config import CheckpointError

__all__ = ["load_sharded", "load_weights", "remove_incomplete", "save_sharded", "sharding_metadata"]

_TEMPORARY = ".incomplete-"

# torch's writer fails on a full disk with an internal message; with less than this free, that was the reason.
_LITTLE_SPACE = 16 * 2**20


def sharding_metadata() -> dict[str, Any]:
    """Return the metadata under which Megatron shards state so that any tensor/pipeline/data layout can load it."""
    return {
        "distrib_optim_sharding_type": "fully_reshardable",
        "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
        "singleton_local_shards": False,
        "chained_optim_avoid_prefix": True,
    }


def save_sharded(state: dict[str, Any], target: Path, information: CheckpointInformation, recipe_yaml: str) -> None:
    """Write a checkpoint under a temporary name and rename it when it is complete; every rank takes part.

    Args:
        state: Megatron's sharded state dict and plain values.
        target: Final directory; replaced if it exists.
        information: Facts beside the tensors.
        recipe_yaml: The recipe, so that the checkpoint can be read without its run.

    Raises:
        CheckpointError: The files could not be written; nothing is left of them and earlier checkpoints are untouched.
    """
    is_main = torch.distributed.get_rank() == 0
    temporary = target.with_name(_TEMPORARY + target.name)
    try:
        if is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        torch.distributed.barrier()
        # What has been written is reported to this process alone. Core would start another one to hold the report, in
        # every rank, which outlives a rank that is killed.
        filesystem_async._results_queue = queue.Queue()
        dist_checkpointing.save(state, str(temporary))
        if is_main:
            (temporary / RECIPE_FILE).write_text(recipe_yaml, encoding="utf-8")
            information.write(temporary)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
        torch.distributed.barrier()
    except (OSError, RuntimeError, CheckpointException, CheckpointingException) as error:
        reason = _reason(error)
        free = shutil.disk_usage(target.parent).free
        if free < _LITTLE_SPACE:
            reason = f"the disk is full ({free // 2**20} MiB are free)"
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"{target}: the checkpoint could not be written: {reason}; earlier checkpoints are untouched"
        ) from error


def _reason(error: BaseException) -> str:
    return " ".join(str(_root_cause(error)).split())[:300]


def _root_cause(error: BaseException) -> BaseException:
    if isinstance(error, CheckpointException):
        failures = [failure[0] for failure in error.failures.values()]
        if failures:
            return _root_cause(failures[0])
    return error


def load_sharded(state: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Fill a sharded state dict from a checkpoint and return it with the plain values.

    Args:
        state: What this rank wants, as sharded tensors.
        checkpoint: A complete checkpoint.

    Raises:
        CheckpointError: A file is missing, damaged or of another shape than asked for.
    """
    read_information(checkpoint)
    try:
        return dist_checkpointing.load(state, str(checkpoint))
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        pickle.UnpicklingError,
        CheckpointException,
        CheckpointingException,
    ) as error:
        raise CheckpointError(f"{checkpoint}: cannot be loaded: {_reason(error)}") from error


def load_weights(shards: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Return the weights of a model or of a part of one, ready for its `load_state_dict`.

    What Transformer Engine keeps beside its weights (FP8 scales) stays behind: it belongs to the run that saved it, and
    a run without Transformer Engine has saved none.

    Args:
        shards: What this rank wants, by the names of the `state_dict`.
        checkpoint: A complete checkpoint.

    Raises:
        CheckpointError: A file is missing, damaged or of another shape than asked for.
    """
    extra_states = {name for name in shards if name.endswith("_extra_state")}
    wanted = {name: shard for name, shard in shards.items() if name not in extra_states}
    # Core leaves out an empty state, as that of a stage which holds nothing of a part.
    loaded = load_sharded({"model": wanted}, checkpoint).get("model", {})
    return {**loaded, **dict.fromkeys(extra_states)}


def remove_incomplete(checkpoints: Path) -> None:
    """Remove what a killed save has left under a run's `checkpoints` directory."""
    for path in checkpoints.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """Return the newest complete checkpoint under a run's `checkpoints` directory, or none."""
    found = list_checkpoints(checkpoints)
    return found[-1] if found else None
