"""The learning-rate schedule against Hugging Face's and Megatron's own."""

import pytest
import torch
from transformers import get_scheduler

from neva_recipes.config import OptimConfig
from neva_recipes.plan.cost.schedule import learning_rate_factor, steps_without_rate, warmup_steps


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


def megatron_rates(lowest: float, warmup: int, decay: int, style: str, run: int) -> list[float]:
    """Return the learning rate of every step of a run, whose peak is 1e-3."""
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    class Optimizer:
        param_groups = [{"lr": 0.0, "params": []}]  # noqa: RUF012

    optimizer, rates = Optimizer(), []
    oracle = OptimizerParamScheduler(optimizer, 0.0, 1e-3, lowest, warmup, decay, style, 0.0, 0.0, decay, "constant")
    for _ in range(run):
        rates.append(optimizer.param_groups[0]["lr"])
        oracle.step(1)
    return rates


@pytest.mark.parametrize("style", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("run", [2170, 1500, 3000])
def test_equals_megatron(style: str, run: int) -> None:
    """Whatever the length of the run, the schedule has its own: Megatron's `lr_decay_iters`."""
    decay = None if run == 2170 else 2170
    optim = OptimConfig(
        lr=1e-3, min_lr=2e-5, lr_decay_style=style, lr_decay_steps=decay, warmup_steps=70, warmup_ratio=None
    )
    for step, rate in enumerate(megatron_rates(2e-5, 70, 2170, style, run)):
        assert optim.lr * learning_rate_factor(step, optim, run) == pytest.approx(rate)


@pytest.mark.parametrize("style", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("warmup", "decay", "run"), [(3, 20, 30), (3, 20, 20), (0, 1, 9), (3, None, 30), (40, 50, 30)])
@pytest.mark.parametrize("lowest", [0.0, 2e-5])
def test_steps_at_a_rate_of_zero_are_counted(
    style: str, warmup: int, decay: int | None, run: int, lowest: float
) -> None:
    """The first step of a warm-up, which every schedule has, is not counted."""
    optim = OptimConfig(
        lr=1e-3, min_lr=lowest, lr_decay_style=style, lr_decay_steps=decay, warmup_steps=warmup, warmup_ratio=None
    )
    zeros = [rate == 0 for rate in megatron_rates(lowest, warmup, decay or run, style, run)]
    assert steps_without_rate(optim, run) == sum(zeros[1:])


def test_llava_warms_up_for_66_of_2181_steps() -> None:
    assert warmup_steps(OptimConfig(warmup_ratio=0.03), 2181) == 66
    assert warmup_steps(OptimConfig(warmup_ratio=0.03, lr_decay_steps=2181), 10_000) == 66
