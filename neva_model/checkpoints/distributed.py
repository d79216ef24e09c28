"""Sharded checkpoints on disk: written completely or not at all, and read with one clear line if something is wrong."""

import pickle
import queue
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedBase, ShardedTensorFactory
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.common import COMMON_STATE_FNAME
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import MetadataIndex

from neva_model.checkpoints.information import CheckpointInformation, read_information
from neva_recipes.config import CheckpointError
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.names import INFORMATION_FILE, is_shard, list_checkpoints
from neva_recipes.run_directory.removal import REMOVED, remove_directory, sweep_directories, sync_files
from neva_recipes.storage.checkpoints import next_best, read_record
from neva_recipes.storage.digests import digests_of, wrong_file

__all__ = [
    "load_sharded",
    "load_weights",
    "newest_checkpoint",
    "save_sharded",
    "sharding_metadata",
    "sweep_checkpoints",
]

_TEMPORARY = ".incomplete-"

# On a full disk torch's writer fails with an internal message; if less than this is free, that was the reason.
_LITTLE_SPACE = 16 * 2**20


def sharding_metadata() -> dict[str, Any]:
    """Return the metadata with which Megatron shards state so that any tensor/pipeline/data layout can load it."""
    return {
        "distrib_optim_sharding_type": "fully_reshardable",
        "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
        "singleton_local_shards": False,
        "chained_optim_avoid_prefix": True,
    }


def save_sharded(state: dict[str, object], target: Path, information: CheckpointInformation, recipe_yaml: str) -> None:
    """Write a checkpoint under a temporary name and rename it when it is complete; every rank must call this.

    Args:
        state: Megatron's sharded state dict and plain values.
        target: Final directory; replaced if it exists.
        information: Facts besides the tensors.
        recipe_yaml: The recipe, so that the checkpoint can be read without its run.

    Raises:
        CheckpointError: The files could not be written; they are removed, and earlier checkpoints are untouched.
    """
    is_main = torch.distributed.get_rank() == 0
    temporary = target.with_name(_TEMPORARY + target.name)
    try:
        if is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        torch.distributed.barrier()
        # The writer reports only to this process. Core would start another process in every rank to hold the report,
        # which would outlive a killed rank.
        filesystem_async._results_queue = queue.Queue()
        dist_checkpointing.save(state, str(temporary))
        digests = _shard_digests(temporary)
        if is_main:
            _keep_plain_values(temporary)
            (temporary / RECIPE_FILE).write_text(recipe_yaml, encoding="utf-8")
            information.write(temporary, digests)
            # Core has already synced the tensors.
            sync_files([*(path for path in temporary.iterdir() if not is_shard(path.name)), temporary])
            remove_directory(target)
            temporary.rename(target)
            sync_files([target.parent])  # before older checkpoints are deleted
        torch.distributed.barrier()
    except (OSError, RuntimeError, CheckpointException, CheckpointingException) as error:
        reason = _reason(error)
        free = shutil.disk_usage(target.parent).free
        if free < _LITTLE_SPACE:
            reason = f"the disk is full ({free // 2**20} MiB are free)"
        shutil.rmtree(temporary, ignore_errors=True)
        earlier = "; earlier checkpoints are untouched" if list_checkpoints(target.parent) else ""
        raise CheckpointError(f"{target}: the checkpoint could not be written: {reason}{earlier}") from error


def _keep_plain_values(checkpoint: Path) -> None:
    """Write the values that are no tensors where every release of Core finds them.

    Core 0.19 writes them among the tensors. Older releases write and read a file of their own, which 0.19 reads where
    there is one.
    """
    file = checkpoint / COMMON_STATE_FNAME
    if not file.exists():
        torch.save(dist_checkpointing.load_common_state_dict(str(checkpoint)), file)


def _shard_digests(directory: Path) -> dict[str, str]:
    """Return the digests of all tensor files, by name; each rank reads from memory what it has just written."""
    own = digests_of(directory.glob(f"__{torch.distributed.get_rank()}_*"))
    gathered: list[dict[str, str]] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, {path.name: digest for path, digest in own.items()})
    return {name: digest for digests in gathered for name, digest in digests.items()}


def _require_shards(checkpoint: Path, names: Collection[str]) -> None:
    """Check the tensor files that any rank will read, each file on one rank; every rank must call this.

    Raises:
        CheckpointError: A file is not as it was written; raised on every rank.
    """
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    wanted: list[Collection[str]] = [()] * size
    torch.distributed.all_gather_object(wanted, names)
    digests = read_record(checkpoint)["digests"]
    own = sorted({name for some in wanted for name in some if name in digests})[rank::size]
    problem = wrong_file(checkpoint, {name: digests[name] for name in own}, INFORMATION_FILE)
    problems: list[str | None] = [None] * size
    torch.distributed.all_gather_object(problems, problem and f"{problem}; {next_best(checkpoint)}")
    if found := [line for line in problems if line is not None]:
        raise CheckpointError(found[0])


def _shards_of(state: dict[str, object], checkpoint: Path) -> set[str]:
    """Return the files that hold the tensors of a sharded state dict."""
    keys = {shard.key for shard in nested_values(state) if isinstance(shard, ShardedBase | ShardedTensorFactory)}
    stored: dict[MetadataIndex, Any] = FileSystemReader(str(checkpoint)).read_metadata().storage_data or {}
    # An object is stored under its key and the number of its shard.
    return {place.relative_path for index, place in stored.items() if index.fqn.partition("/shard_")[0] in keys}


def _reason(error: BaseException) -> str:
    return " ".join(str(_root_cause(error)).split())[:300]


def _root_cause(error: BaseException) -> BaseException:
    if isinstance(error, CheckpointException):
        failures = [failure[0] for failure in error.failures.values()]
        if failures:
            return _root_cause(failures[0])
    return error


def load_sharded(state: dict[str, object], checkpoint: Path) -> dict[str, Any]:
    """Fill a sharded state dict from a checkpoint and return it with the plain values.

    Args:
        state: The sharded tensors that this rank needs.
        checkpoint: A complete checkpoint.

    Raises:
        CheckpointError: A file is missing or damaged, or has a shape other than asked for.
    """
    read_information(checkpoint)
    try:
        _require_shards(checkpoint, _shards_of(state, checkpoint))
        return dist_checkpointing.load(state, str(checkpoint))
    except CheckpointError:
        raise
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


def load_weights(shards: dict[str, object], checkpoint: Path) -> dict[str, Any]:
    """Return the weights of a model or of a part of one, ready for its `load_state_dict`.

    Transformer Engine's extra state (FP8 scales) is not loaded: it belongs to the run that saved it, and a run without
    Transformer Engine has saved none.

    Args:
        shards: The shards that this rank needs, by the names of the `state_dict`.
        checkpoint: A complete checkpoint.

    Raises:
        CheckpointError: A file is missing or damaged, or has a shape other than asked for.
    """
    extra_states = {name for name in shards if name.endswith("_extra_state")}
    wanted = {name: shard for name, shard in shards.items() if name not in extra_states}
    # Core omits an empty state, such as that of a stage without this part.
    loaded = load_sharded({"model": wanted}, checkpoint).get("model", {})
    return {**loaded, **dict.fromkeys(extra_states)}


def sweep_checkpoints(checkpoints: Path) -> None:
    """Remove the remains of killed saves and removals from a run's `checkpoints` directory."""
    sweep_directories(checkpoints, _TEMPORARY, REMOVED)


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """Return the newest checkpoint under a run's `checkpoints` directory, or `None`."""
    found = list_checkpoints(checkpoints)
    return found[-1] if found else None
