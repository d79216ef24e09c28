"""The learning-rate schedule against Hugging Face's and Megatron's own."""

import pytest
import torch
from transformers import get_scheduler

from neva_recipes.config import OptimConfig
from neva_recipes.plan.cost.schedule import learning_rate_factor, warmup_steps


@pytest.mark.parametrize("style", ["cosine", "linear"])
@pytest.mark.parametrize(("ratio", "steps"), [(0.03, 100), (0.03, 2181), (0.0, 7), (1.0, 5)])
def test_equals_hugging_face(style: str, ratio: float, steps: int) -> None:
    optim = OptimConfig(lr=2e-5, lr_decay_style=style, warmup_ratio=ratio)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=optim.lr)
    oracle = get_scheduler(style, optimizer, num_warmup_steps=warmup_steps(optim, steps), num_training_steps=steps)
    for step in range(steps):
        assert optim.lr * learning_rate_factor(step, optim, steps) == pytest.approx(oracle.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        oracle.step()


@pytest.mark.parametrize("style", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("run", [2170, 1500, 3000])
def test_equals_megatron(style: str, run: int) -> None:
    """Whatever the length of the run, the schedule has its own: Megatron's `lr_decay_iters`."""
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    class Optimizer:
        param_groups = [{"lr": 0.0, "params": []}]  # noqa: RUF012

    decay = None if run == 2170 else 2170
    optim = OptimConfig(
        lr=1e-3, min_lr=2e-5, lr_decay_style=style, lr_decay_steps=decay, warmup_steps=70, warmup_ratio=None
    )
    optimizer = Optimizer()
    oracle = OptimizerParamScheduler(optimizer, 0.0, 1e-3, 2e-5, 70, 2170, style, 0.0, 0.0, 2170, "constant")
    for step in range(run):
        assert optim.lr * learning_rate_factor(step, optim, run) == pytest.approx(optimizer.param_groups[0]["lr"])
        oracle.step(1)


def test_llava_warms_up_for_66_of_2181_steps() -> None:
    assert warmup_steps(OptimConfig(warmup_ratio=0.03), 2181) == 66
    assert warmup_steps(OptimConfig(warmup_ratio=0.03, lr_decay_steps=2181), 10_000) == 66
