"""Counts the operations of real forward and backward passes with torch's flop counter; prints JSON, one number a case.

Attention runs on PyTorch's plain products, all of which are counted: the fused kernels of a CPU are not.
"""

import json
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from neva_model.startup import prepare_process
from neva_recipes.config import Recipe
from neva_recipes.families import image_length
from tests.plan.model_shapes import small_recipe

prepare_process()

from megatron.core import parallel_state, tensor_parallel  # noqa: E402

from neva_model.model import build_model  # noqa: E402


def count(recipe: Recipe, rows: int, length: int) -> int:
    """Return the operations of forward and backward pass over rows with one image each."""
    model = build_model(recipe, pre_process=True, post_process=True)
    vision, language = recipe.model.vision, recipe.model.language
    tokens = torch.randint(0, language.vocab_size, (rows, length))
    images = None
    if vision is not None:
        tokens[:, 1 : 1 + image_length(vision)] = -200
        images = torch.randn(rows, 3, vision.image_size, vision.image_size)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        losses = model(
            tokens=tokens,
            position_ids=torch.arange(length).expand(rows, -1),
            images=images,
            labels=torch.randint(0, language.vocab_size, (rows, length)),
        )
        losses.sum().backward()
    return counter.get_total_flops()


if __name__ == "__main__":
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    tensor_parallel.model_parallel_cuda_manual_seed(1)
    cases = json.loads(sys.argv[1])
    print(json.dumps([count(small_recipe(case), rows=2, length=24) for case in cases]))
