"""One rank that trains small models for a step each and measures the tensors that are then allocated.

Every case is built as a run builds it: the model, Megatron's gradient buffers and optimizer, one optimizer step through
Megatron's schedule. Writes JSON: for each case, bytes by category on this rank.
"""

import json
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from neva_model.startup import prepare_process
from neva_recipes.config import Recipe
from neva_recipes.families import image_length
from tests.plan.state_cases import CASES, recipe_of

prepare_process()

from megatron.core import parallel_state, tensor_parallel  # noqa: E402
from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402

from neva_model.model import build_chunks, model_parallel_sizes  # noqa: E402
from neva_model.training.average import AverageWeights  # noqa: E402
from neva_model.training.optimizer import build_optimizer, wrap_data_parallel  # noqa: E402


def measure(recipe: Recipe) -> dict[str, int]:
    """Train a step and return bytes by category; storage that several tensors share counts once, where it is first."""
    parallel_state.initialize_model_parallel(**model_parallel_sizes(recipe.parallel))
    tensor_parallel.model_parallel_cuda_manual_seed(1)
    model = build_chunks(recipe)
    wrapped = wrap_data_parallel(model, recipe)
    optimizer = build_optimizer(wrapped, recipe)
    averages: list[torch.Tensor] = []
    if recipe.trainer.ema_decay is not None:
        callback = AverageWeights(recipe.trainer.ema_decay)
        callback.on_fit_start(None, SimpleNamespace(neva=model))
        averages = callback.averages
    get_forward_backward_func()(
        forward_step_func=_forward_step,
        data_iterator=[iter([_batch(recipe)] * 2) for _ in wrapped],
        model=wrapped,
        num_microbatches=2,
        seq_length=16,
        micro_batch_size=2,
        forward_only=False,
    )
    optimizer.step()
    counted: set[int] = set()
    categories = {
        "weights": model.parameters(),
        "gradients": [
            *(buffer.grad_data for chunk in wrapped for buffer in chunk.buffers),
            *(parameter.grad for parameter in _updated(optimizer) if parameter.grad is not None),
        ],
        "optimizer": [*_optimizer_tensors(optimizer), *averages],
    }
    sizes = {name: sum(_new_bytes(tensor, counted) for tensor in tensors) for name, tensors in categories.items()}
    parallel_state.destroy_model_parallel()
    return sizes


def _new_bytes(tensor: torch.Tensor, counted: set[int]) -> int:
    storage = tensor.untyped_storage()
    if storage.data_ptr() in counted:
        return 0
    counted.add(storage.data_ptr())
    return storage.nbytes()


def _optimizer_tensors(optimizer) -> Iterable[torch.Tensor]:
    """Yield what the inner torch optimizers of Megatron's update and keep: master weights and both moments."""
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for parameter in _updated(part):
            yield parameter
            yield from (value for value in part.optimizer.state[parameter].values() if torch.is_tensor(value))


def _updated(optimizer) -> Iterable[torch.Tensor]:
    """Yield the tensors that the inner torch optimizers update: master weights, or the weights themselves."""
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for group in part.optimizer.param_groups if part.optimizer is not None else []:
            yield from group["params"]


def _batch(recipe: Recipe) -> dict[str, torch.Tensor | None]:
    vision = recipe.model.vision
    tokens = torch.ones(2, 16, dtype=torch.int64)
    if vision is not None:
        tokens[:, 1 : 1 + image_length(vision)] = -200
    return {
        "tokens": tokens,
        "labels": torch.ones(2, 16, dtype=torch.int64),
        "position_ids": torch.arange(16).expand(2, -1),
        "images": None if vision is None else torch.zeros(2, 3, vision.image_size, vision.image_size),
    }


def _forward_step(batches, model):
    output = model(**next(batches))
    return output, partial(_sum)


def _sum(losses: torch.Tensor):
    return losses.sum(), torch.tensor(losses.numel(), dtype=torch.int32), {}


def main() -> None:
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # Ranks that meet in a file need no port that is free.
    meeting = f"file://{sys.argv[1]}/ranks-of-{processes}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    sizes = [measure(recipe_of(case, processes)) for case in CASES[processes]]
    Path(sys.argv[1], f"rank-{rank}-of-{processes}.json").write_text(json.dumps(sizes))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
