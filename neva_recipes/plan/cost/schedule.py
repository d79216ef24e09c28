"""The length of a run, and its learning rate as a function of the step."""

import math

from neva_recipes.config import OptimConfig, Recipe, how_many

__all__ = [
    "learning_rate",
    "learning_rate_factor",
    "run_passes",
    "run_steps",
    "schedule_steps",
    "short_pass",
    "steps_without_rate",
    "warmup_steps",
]


def run_steps(recipe: Recipe, num_samples: int | None) -> int | None:
    """Return the optimizer steps of a whole run: as given, or those of its passes over the data, rounded up.

    Args:
        recipe: The recipe.
        num_samples: Samples of one pass; `None` if unknown.

    Returns:
        The steps; `None` if they depend on an unknown number of samples.
    """
    if recipe.trainer.max_steps is not None:
        return recipe.trainer.max_steps
    if num_samples is None:
        return None
    return math.ceil((recipe.trainer.max_epochs or 1) * num_samples / recipe.data.global_batch_size)


def run_passes(recipe: Recipe, num_samples: int | None) -> float | None:
    """Return the passes over its samples that a whole run makes; `None` if the number of samples is unknown.

    Args:
        recipe: The recipe.
        num_samples: Samples of one pass.
    """
    steps = run_steps(recipe, num_samples)
    return steps * recipe.data.global_batch_size / num_samples if steps is not None and num_samples else None


def short_pass(recipe: Recipe, num_samples: int) -> str | None:
    """Return why a single pass over the training files is shorter than the run; `None` if it is not.

    Args:
        recipe: A recipe whose `data.dataloader_type` is `single`.
        num_samples: Samples of the files; samples that don't fill a global batch are dropped.
    """
    trainer, size = recipe.trainer, recipe.data.global_batch_size
    steps = num_samples // size
    if steps > 0 and (trainer.max_steps or 0) <= steps and (trainer.max_epochs or 0) <= 1:
        return None
    asked = f"max_steps={trainer.max_steps}" if trainer.max_steps else f"max_epochs={trainer.max_epochs or 1}"
    one_pass = f"a single pass over {how_many(num_samples, 'sample')} has {how_many(steps, 'step')} of {size}"
    return f"{one_pass}, but trainer.{asked}"


def schedule_steps(optim: OptimConfig, max_steps: int) -> int:
    """Return the length of the schedule in steps: as given, or that of the run."""
    return max_steps if optim.lr_decay_steps is None else optim.lr_decay_steps


def warmup_steps(optim: OptimConfig, max_steps: int) -> int:
    """Return the number of warm-up steps: as given, or a ratio of the schedule, rounded up.

    Hugging Face rounds up; like here, Megatron takes the ratio of `lr_decay_iters`.
    """
    if optim.warmup_steps is not None:
        return optim.warmup_steps
    return math.ceil((optim.warmup_ratio or 0.0) * schedule_steps(optim, max_steps))


def steps_without_rate(optim: OptimConfig, max_steps: int) -> int:
    """Return how many of the last steps of a run have a learning rate of zero.

    Args:
        optim: The schedule.
        max_steps: Number of steps of the whole run.
    """
    if optim.lr_decay_style == "constant" or optim.min_lr > 0:
        return 0
    # The first step after the warm-up has the peak, however short the schedule is.
    end = max(schedule_steps(optim, max_steps), warmup_steps(optim, max_steps) + 1)
    return max(0, max_steps - end)


def learning_rate(step: int, optim: OptimConfig, max_steps: int) -> float:
    """Return the learning rate of the step after the first `step` steps."""
    return optim.lr * learning_rate_factor(step, optim, max_steps)


def learning_rate_factor(step: int, optim: OptimConfig, max_steps: int) -> float:
    """Return the learning rate of a step as a multiple of `optim.lr`.

    It rises linearly from zero during warm-up, then falls as a cosine or linearly to `min_lr`, which is reached after
    the last step of the schedule and kept. These are the schedules of Hugging Face's `get_scheduler` and of Megatron's
    `OptimizerParamScheduler`.

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
    done = min((step - warmup) / max(1, schedule_steps(optim, max_steps) - warmup), 1.0)
    remaining = 0.5 * (1.0 + math.cos(math.pi * done)) if optim.lr_decay_style == "cosine" else 1.0 - done
    floor = optim.min_lr / optim.lr
    return floor + (1.0 - floor) * remaining
