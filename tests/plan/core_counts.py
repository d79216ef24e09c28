"""Builds every pipeline stage of many recipes in one process, which plays any rank of any layout, and counts.

The process group is torch's fake one: it does no communication and believes any rank and size. Prints one line of
JSON: for each recipe, for each of its stages, [weights, trained weights] of each part.
"""

import json
import random
import sys

import torch
from torch.testing._internal.distributed.fake_pg import FakeStore

from neva_model.startup import prepare_process
from neva_recipes.config import Recipe
from neva_recipes.plan import layout_of
from tests.plan.model_shapes import random_recipes

prepare_process()

from megatron.core import parallel_state, tensor_parallel  # noqa: E402

from neva_model.model import build_chunks, model_parallel_sizes  # noqa: E402

Counts = dict[str, list[int]]


def stages(recipe: Recipe, generator: random.Random) -> list[Counts]:
    """Return the counts of each pipeline stage, on a rank of it drawn at random."""
    layout = layout_of(recipe)
    counts = []
    for stage in range(layout.pipeline_model_parallel_size):
        on_stage = [coordinates.rank for coordinates in layout.ranks if coordinates.pipeline == stage]
        torch.distributed.init_process_group(
            "fake", store=FakeStore(), rank=generator.choice(on_stage), world_size=layout.world_size
        )
        parallel_state.initialize_model_parallel(
            **model_parallel_sizes(recipe.parallel), create_gloo_process_groups=False
        )
        tensor_parallel.model_parallel_cuda_manual_seed(1)
        counts.append(_count(recipe))
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
    return counts


def _count(recipe: Recipe) -> Counts:
    counts: Counts = {}
    for chunk in build_chunks(recipe):
        for name in ("language", "vision", "projector"):
            part = getattr(chunk, name)
            if part is not None:
                total, trained = counts.get(name, [0, 0])
                sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
                total += sum(size for size, _ in sizes)
                trained += sum(size for size, is_trained in sizes if is_trained)
                counts[name] = [total, trained]
    return counts


if __name__ == "__main__":
    seed, number = int(sys.argv[1]), int(sys.argv[2])
    drawn = random.Random(seed)
    print(json.dumps([stages(recipe, drawn) for recipe in random_recipes(seed, number)]))
