"""Runs Megatron-Core's pipeline schedules as any rank and counts forward passes that wait for their backward pass.

Prints JSON: for each case (stages, virtual stages, microbatches), the largest such number on each stage. The process
group is torch's fake one, so what a stage receives is garbage, but the order of its passes is real.
"""

import json
import sys

import torch
from torch.testing._internal.distributed.fake_pg import FakeStore

from neva_model.startup import prepare_process
from tests.plan.model_shapes import small_recipe

prepare_process()

from megatron.core import parallel_state, tensor_parallel  # noqa: E402
from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402

from neva_model.model import build_chunks, model_parallel_sizes  # noqa: E402

ROWS, LENGTH = 1, 8


class Waiting:
    """How many forward passes wait now, and how many did at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def begin(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)


class Watched(torch.autograd.Function):
    """The identity, which tells when its forward and its backward pass happen."""

    @staticmethod
    def forward(ctx, output, waiting):
        ctx.waiting = waiting
        waiting.begin()
        return output.view_as(output)

    @staticmethod
    def backward(ctx, gradient):
        ctx.waiting.now -= 1
        return gradient, None


def most_waiting(stages: int, pieces: int, microbatches: int, stage: int) -> int:
    recipe = small_recipe(
        {
            "text": True,
            "trainer.devices": stages,
            "model.language.num_layers": stages * pieces,
            "parallel.pipeline_model_parallel_size": stages,
            "parallel.virtual_pipeline_model_parallel_size": pieces if pieces > 1 else None,
        }
    )
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=stage, world_size=stages)
    parallel_state.initialize_model_parallel(**model_parallel_sizes(recipe.parallel), create_gloo_process_groups=False)
    tensor_parallel.model_parallel_cuda_manual_seed(1)
    chunks = list(build_chunks(recipe))
    for chunk in chunks:
        chunk.config.variable_seq_lengths = False  # or stages would tell each other garbage for shapes
    waiting = Waiting()

    def forward_step(batches, model):
        tokens = next(batches)
        positions = torch.arange(LENGTH).expand(ROWS, -1)
        output = Watched.apply(model(tokens=tokens, position_ids=positions, labels=tokens), waiting)
        return output, lambda losses: (losses.sum(), torch.tensor(LENGTH, dtype=torch.int32), {})

    tokens = torch.ones(ROWS, LENGTH, dtype=torch.int64)
    get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=[iter([tokens] * microbatches) for _ in chunks],
        model=chunks,
        num_microbatches=microbatches,
        seq_length=LENGTH,
        micro_batch_size=ROWS,
        forward_only=False,
    )
    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()
    assert waiting.now == 0
    return waiting.most


if __name__ == "__main__":
    cases = json.loads(sys.argv[1])
    print(json.dumps([[most_waiting(*case, stage) for stage in range(case[0])] for case in cases]))
