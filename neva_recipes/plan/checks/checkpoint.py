"""Rules on validation and on the checkpoints it ranks."""

from collections.abc import Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.checks._rules import Found, Rule, found, multiples
from neva_recipes.plan.findings import error, warning

__all__ = ["checkpoint_rules"]

_FILE = "data.validation_data_path"
_INTERVAL = "trainer.val_check_interval"
_BATCHES = "trainer.limit_val_batches"
_PATIENCE = "trainer.early_stopping_patience"
_STEPS = "trainer.max_steps"
_EVERY = "checkpoint.every_n_train_steps"
_MINUTES = "checkpoint.train_time_interval_minutes"
_TOP = "checkpoint.save_top_k"
_LAST = "checkpoint.save_last"
_MONITOR = "checkpoint.monitor"
_MODE = "checkpoint.mode"


def monitored(recipe: Recipe) -> Iterator[Found]:
    """The metric that ranks checkpoints is measured."""
    if recipe.checkpoint.monitor == "val_loss" and recipe.data.validation_data_path is None:
        message = "val_loss is measured on a validation file, and there is none"
        advice = f"name one: {_FILE}=FILE"
        yield found(
            error("monitor-without-validation", message, recipe, _MONITOR, _FILE, advice=advice),
            [{_MONITOR: None}, {_MONITOR: None, _PATIENCE: None}],
            [{_MONITOR: "reduced_train_loss"}],
        )


def early_stopping(recipe: Recipe) -> Iterator[Found]:
    """Early stopping needs a metric that is measured more than once."""
    trainer, data = recipe.trainer, recipe.data
    if trainer.early_stopping_patience is None:
        return
    missing = [_MONITOR] if recipe.checkpoint.monitor is None else []
    missing += [_FILE] if data.validation_data_path is None else []
    if missing:
        message = f"early stopping needs {' and '.join(missing)}"
        both = {_MONITOR: f"{_MONITOR}=val_loss", _FILE: f"{_FILE}=FILE"}
        yield found(
            error(
                "early-stopping",
                message,
                recipe,
                _PATIENCE,
                *missing,
                advice=f"set {' '.join(both[path] for path in missing)}",
            ),
            [{_PATIENCE: None}],
        )
    elif trainer.val_check_interval is None:
        message = "training is validated at its end only, when there is nothing left to stop"
        steps = trainer.max_steps
        often = [{_INTERVAL: max(1, steps // (4 * trainer.early_stopping_patience))}] if steps is not None else []
        yield found(warning("early-stopping-late", message, recipe, _PATIENCE, _INTERVAL), often, [{_PATIENCE: None}])


def validation_file(recipe: Recipe) -> Iterator[Found]:
    """Validation needs a file."""
    unused = [path for path in (_INTERVAL, _BATCHES) if getattr(recipe.trainer, path.rpartition(".")[2]) is not None]
    if unused and recipe.data.validation_data_path is None:
        message = "nothing is validated without a validation file"
        advice = f"name one: {_FILE}=FILE"
        yield found(
            warning("validation-unused", message, recipe, *unused, _FILE, advice=advice), [dict.fromkeys(unused)]
        )


def validation_interval(recipe: Recipe) -> Iterator[Found]:
    """The first validation comes before training ends."""
    interval, steps = recipe.trainer.val_check_interval, recipe.trainer.max_steps
    if interval is not None and steps is not None and interval > steps and recipe.data.validation_data_path:
        message = f"training ends after {steps} steps, before the first validation"
        yield found(
            warning("validation-never", message, recipe, _INTERVAL, _STEPS), [{_INTERVAL: steps}], [{_INTERVAL: None}]
        )


def ranked_by_validation(recipe: Recipe) -> Iterator[Found]:
    """Each checkpoint is ranked by a validation of its own weights."""
    checkpoint, interval = recipe.checkpoint, recipe.trainer.val_check_interval
    every = checkpoint.every_n_train_steps
    if checkpoint.monitor != "val_loss" or recipe.data.validation_data_path is None or every is None:
        return
    if checkpoint.save_top_k in (-1, 0):
        return  # `monitor-unused` reports it
    steps = recipe.trainer.max_steps
    if interval is None and (steps is None or every < steps):
        message = "training is validated at its end only: checkpoints before it have no val_loss to be ranked by"
        yield found(warning("monitor-at-end", message, recipe, _MONITOR, _INTERVAL, _EVERY), [{_INTERVAL: every}])
    elif interval is not None and every % interval and (steps is None or every < steps):
        message = f"checkpoints every {every} steps are ranked by a validation before them, every {interval} steps"
        yield found(
            warning("monitor-out-of-step", message, recipe, _MONITOR, _INTERVAL, _EVERY),
            *multiples(_EVERY, every, interval),
            [{_INTERVAL: every}],
        )


def kept_checkpoints(recipe: Recipe) -> Iterator[Found]:
    """A run keeps some checkpoint."""
    checkpoint = recipe.checkpoint
    if checkpoint.save_top_k == 0 and not checkpoint.save_last:
        written = [path for path in (_EVERY, _MINUTES) if getattr(checkpoint, path.rpartition(".")[2]) is not None]
        also = "; what is written on the way is deleted at once" if written else ""
        message = f"no checkpoint is kept: nothing of the training is left{also}"
        yield found(warning("nothing-kept", message, recipe, _TOP, _LAST, *written), [{_LAST: True}], [{_TOP: 1}])


def monitor_without_ranking(recipe: Recipe) -> Iterator[Found]:
    """The monitored metric ranks checkpoints or stops the training."""
    checkpoint = recipe.checkpoint
    if (
        checkpoint.monitor is not None
        and checkpoint.save_top_k in (-1, 0)
        and recipe.trainer.early_stopping_patience is None
    ):
        what = "all checkpoints are" if checkpoint.save_top_k == -1 else "none but the last checkpoint is"
        message = f"nothing is ranked by it: {what} kept"
        yield found(warning("monitor-unused", message, recipe, _MONITOR, _TOP), [{_MONITOR: None}], [{_TOP: 1}])


def loss_mode(recipe: Recipe) -> Iterator[Found]:
    """A lower loss is better."""
    if recipe.checkpoint.mode == "max":
        monitor = recipe.checkpoint.monitor
        message = (
            "has no effect without monitor" if monitor is None else f"keeps the checkpoints of the worst {monitor}"
        )
        yield found(warning("monitor-mode", message, recipe, _MODE, _MONITOR), [{_MODE: "min"}])


checkpoint_rules: tuple[Rule, ...] = (
    monitored,
    early_stopping,
    validation_file,
    validation_interval,
    ranked_by_validation,
    kept_checkpoints,
    monitor_without_ranking,
    loss_mode,
)
