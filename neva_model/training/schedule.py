"""Learning rate as a function of the step."""

import math

from neva_recipes.config import OptimConfig

__all__ = ["learning_rate_factor", "warmup_steps"]


def warmup_steps(optim: OptimConfig, max_steps: int) -> int:
    """Return the number of warm-up steps: as given, or the ratio of all steps rounded up, as Hugging Face does."""
    if optim.warmup_steps is not None:
        return optim.warmup_steps
    return math.ceil((optim.warmup_ratio or 0.0) * max_steps)


def learning_rate_factor(step: int, optim: OptimConfig, max_steps: int) -> float:
    """Return the learning rate of a step as a multiple of `optim.lr`.

    Linear from zero during warm-up; then cosine or linear down to `min_lr`, which is reached after the last step,
    the schedules of Hugging Face's `get_scheduler` and of Megatron's `OptimizerParamScheduler`.

    Args:
        step: Number of optimizer steps already taken.
        optim: The schedule.
        max_steps: Number of steps of the whole run.
    """
    warmup = warmup_steps(optim, max_steps)
    if step < warmup:
        return step / warmup
    if optim.lr_decay_style == "constant":
        return 1.0
    done = min((step - warmup) / max(1, max_steps - warmup), 1.0)
    remaining = 0.5 * (1.0 + math.cos(math.pi * done)) if optim.lr_decay_style == "cosine" else 1.0 - done
    floor = optim.min_lr / optim.lr
    return floor + (1.0 - floor) * remaining
