"""Averaged (EMA) weights in a sharded state dict, beside the weights that they are averages of."""

from typing import Any

import torch

from neva_model.checkpoints.distributed import sharding_metadata

__all__ = ["average_shards"]

_PREFIX = "average."


def average_shards(model: Any, averages: list[torch.Tensor]) -> dict[str, Any]:
    """Return the shards of averaged weights: like those of the trainable weights, under keys of their own.

    Args:
        model: The model.
        averages: One tensor per trainable parameter of the model, in order.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    average_of = {id(parameter): average for parameter, average in zip(trainable, averages, strict=True)}
    shards = {}
    for name, shard in model.sharded_state_dict(prefix=_PREFIX, metadata=sharding_metadata()).items():
        average = average_of.get(id(getattr(shard, "data", None)))
        if average is not None:
            shard.data = average.detach()
            if hasattr(shard, "dtype"):
                shard.dtype = average.dtype
            shards[name.removeprefix(_PREFIX)] = shard
    assert len(shards) == len(averages), "a trainable weight is missing from the sharded state dict"
    return shards
