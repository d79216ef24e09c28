"""The whole part of the model that one rank holds: one chunk, or one for each virtual pipeline stage."""

from collections.abc import Iterator
from typing import cast

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedStateDict

from neva_model.model.neva import NevaModel, build_model
from neva_recipes.config import Recipe

__all__ = ["ModelChunks", "build_chunks"]


class ModelChunks(torch.nn.ModuleList):
    """The chunks of a rank, in the order in which a sequence passes them.

    Names inside are those of a list (`0.language...`). The keys of shards in a checkpoint do not distinguish chunks:
    they count layers over the whole model, so that any layout loads what another has saved.
    """

    def __iter__(self) -> Iterator[NevaModel]:
        """Yield the chunks."""
        return cast(Iterator[NevaModel], super().__iter__())

    @property
    def projector(self) -> torch.nn.Module | None:
        """The projector, if this rank holds it; only the first chunk of the first stage can."""
        return next(iter(self)).projector

    def sharded_state_dict(self, prefix: str = "", metadata: dict[str, object] | None = None) -> ShardedStateDict:
        """Return the shards under the names of this module's `state_dict`.

        Args:
            prefix: Start of every name and every key.
            metadata: Megatron's metadata for sharding.
        """
        return {
            f"{prefix}{index}.{name.removeprefix(prefix)}": shard
            for index, chunk in enumerate(self)
            for name, shard in chunk.sharded_state_dict(prefix=prefix, metadata=metadata).items()
        }


def build_chunks(recipe: Recipe) -> ModelChunks:
    """Return this rank's chunks of a recipe's model with their initial weights, which do not depend on the layout.

    Megatron's process groups must exist. Weights that `from_pretrained` names are loaded by `neva_model.checkpoints`.

    Args:
        recipe: The recipe.

    Raises:
        RecipeError: The recipe needs Transformer Engine and a GPU, and they are missing.
    """
    number = parallel_state.get_virtual_pipeline_model_parallel_world_size()
    stages: list[int | None] = [None] if number is None else list(range(number))
    return ModelChunks(
        build_model(
            recipe,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
            virtual_stage=stage,
        )
        for stage in stages
    )
