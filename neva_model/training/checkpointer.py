"""Decides when checkpoints are written and which are kept."""

import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from neva_model.checkpoints.information import (
    CheckpointInformation,
    Validation,
    complete_validation,
    recorded_information,
)
from neva_model.failure import DivergedError, FailedTogether
from neva_model.training.failures import Failures
from neva_model.training.stop import is_stop_requested
from neva_recipes.config import CheckpointConfig, CheckpointError, UserError
from neva_recipes.run_directory.names import checkpoint_name, list_checkpoints
from neva_recipes.run_directory.needed import is_needed
from neva_recipes.run_directory.removal import remove_directory
from neva_recipes.storage.best import best_step, own_loss

__all__ = ["Checkpointer", "checkpoints_to_delete"]


def checkpoints_to_delete(values: dict[int, float], config: CheckpointConfig, best: int | None = None) -> set[int]:
    """Return the steps whose checkpoints should be deleted.

    Args:
        values: The monitored value of each checkpoint, by step (not-a-number if there was none yet).
        config: How many to keep, and which are best.
        best: Step of a checkpoint that is kept in addition.
    """
    if config.save_top_k == -1:
        return set()
    sign = 1 if config.mode == "min" else -1

    def rank(step: int) -> tuple[float, int]:
        value = values[step]
        if config.monitor is None:
            return (0.0, -step)
        return (math.inf if math.isnan(value) else sign * value, -step)

    kept = set(sorted(values, key=rank)[: config.save_top_k])
    if config.save_last and values:
        kept.add(max(values))
    return set(values) - kept - {best}


class Checkpointer(Checkpoint):
    """Saves every N steps or minutes and at the end, keeps the best and the newest, and stops the run on request.

    A step is saved before the validation that belongs to it, since that may fail. The results of the validation are
    added afterwards, and only then does it decide what to keep. A run that failed or was killed in between validates
    when it is resumed.

    Without a monitored metric, the checkpoint with the lowest validation loss is kept in addition. If a validation
    finds a lower loss and no checkpoint is due, its step is saved. Such a checkpoint does not replace any other, and is
    deleted when a later one is better. One that a run with adapters needs stays as long as that run is there.

    During training, an older checkpoint is deleted only after weights that were saved later have given a finite loss:
    weights of a training that is about to diverge must not replace it. The last weights of an attempt give no loss.

    The checkpoints on disk, not remembered state, determine what to keep, so a resumed run keeps the same checkpoints
    as an uninterrupted one. A checkpoint for a stop between regular ones does not replace any other, and is deleted
    when the run has got further.

    Attributes:
        is_stopped: Whether the run ended because a rank was asked to stop.
    """

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig,
        failures: Failures,
        resumed: Validation | None,
        *,
        validates_first: bool,
    ) -> None:
        """Keep checkpoints under `directory`.

        Args:
            directory: The run's `checkpoints`.
            config: When to save and what to keep.
            failures: Failures of this rank that end the run after the step.
            resumed: State of the validation for the checkpoint that training goes on from.
            validates_first: Whether to validate before the first step of the run.
        """
        self._directory = directory
        self._config = config
        self._failures = failures
        self._resumed = resumed
        self._validates_first = validates_first
        self._saved_step = -1
        self._saved_time = time.monotonic()
        self._validates = False
        self._deletes_next = False
        self._unusable: set[Path] = set()
        self.is_stopped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate if the run ended before it could, and stop before the first step if asked to."""
        self._saved_step = trainer.global_step
        self._deletes_next = True
        if self._resumed == "due" or self._validates_first:
            self._validate_at_once(trainer, pl_module)
        if trainer.global_step < trainer.max_steps and not trainer.should_stop:
            self._stop_if_requested(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save if it is time, and stop on request, unless a validation of this step follows."""
        pl_module.is_whole = True
        if self._deletes_next:
            self._delete_superseded(trainer)
        step, every = trainer.global_step, self._config.every_n_train_steps
        self._validates = bool(trainer.num_val_batches) and step % int(trainer.val_check_batch) == 0
        is_last = step >= trainer.max_steps and bool(self._config.save_last or self._config.save_top_k)
        if (every is not None and step % every == 0) or self._minutes_are_over(trainer) or is_last:
            self._save(trainer)
        if not self._validates:
            self._end_step(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the results to the checkpoint of this step, and do what has waited for them."""
        if trainer.global_step == 0:
            return  # before training, of which no checkpoint is kept
        if self._saved_step == trainer.global_step:
            if trainer.global_rank == 0:
                metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
                path = self._directory / checkpoint_name(self._saved_step)
                complete_validation(path, metrics, is_best=self._is_best(trainer))
            self._delete_superseded(trainer)
        elif trainer.strategy.broadcast(trainer.global_rank == 0 and self._is_best(trainer)):
            self._save(trainer, for_best=True)
            self._delete_superseded(trainer)
        self._validates = False
        self._end_step(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the result of the run."""
        if not self.is_stopped and (self._config.save_last or self._config.save_top_k):
            self._save(trainer)
        self._delete_superseded(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save what was trained, unless saving has failed, the weights belong to no step, or ranks are missing."""
        is_together = isinstance(exception, FailedTogether) or trainer.world_size == 1
        is_lost = isinstance(exception, CheckpointError | DivergedError) or not isinstance(exception, Exception)
        if self._saved_step < 0 or self._saved_step == trainer.global_step:
            return
        if is_lost or not is_together or not pl_module.is_whole:
            return
        _end_loops(trainer)
        try:
            self._save(trainer, on_request=True)
        except UserError as error:
            outcome = f"what was trained since step {self._saved_step} is lost: {error}"
        else:
            outcome = f"saved step {trainer.global_step} before ending: {checkpoint_name(trainer.global_step)}"
        if trainer.global_rank == 0:
            print(outcome, flush=True)

    def _end_step(self, trainer: pl.Trainer) -> None:
        if trainer.global_step < trainer.max_steps and not trainer.should_stop:
            self._stop_if_requested(trainer)

    def _validate_at_once(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate before the first step, as Lightning does after a step."""
        trainer.fit_loop.epoch_loop.max_steps = pl_module.max_steps
        epoch_loop = trainer.fit_loop.epoch_loop
        loop, stepped = epoch_loop.val_loop, epoch_loop._batches_that_stepped
        # The loop's state in the checkpoint belongs to another validation.
        loop.restarting = False
        loop.reset_restart_stage()
        trainer.validating = True
        # Lightning counts a step only after its validation, and loggers count from zero.
        epoch_loop._batches_that_stepped = trainer.global_step - 1
        loop.run()
        epoch_loop._batches_that_stepped = stepped
        trainer.training = True

    def _stop_if_requested(self, trainer: pl.Trainer) -> None:
        """Stop all ranks at the same step if any rank was asked to or has met a failure."""
        # Lightning's `reduce_boolean_decision` would also wait at a barrier.
        found = [int(is_stop_requested()), int(self._failures.is_pending)]
        requests = torch.tensor(found, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(requests)
        is_requested, is_failed = requests.tolist()
        if is_failed:
            self._failures.raise_first()
        if not is_requested:
            return
        self._save(trainer, on_request=True)
        self.is_stopped = True
        # With `trainer.should_stop`, Lightning would validate once more.
        trainer.fit_loop.epoch_loop.max_steps = trainer.global_step

    def _is_best(self, trainer: pl.Trainer) -> bool:
        """Return whether to keep the step because its validation loss is the lowest; called on one rank."""
        if not self._config.keeps_best:
            return False
        losses = _own_losses(self._usable())
        best = best_step(losses)
        return best is None or float(trainer.callback_metrics["val_loss"]) < losses[best]

    def _minutes_are_over(self, trainer: pl.Trainer) -> bool:
        minutes = self._config.train_time_interval_minutes
        if minutes is None:
            return False
        is_over = time.monotonic() - self._saved_time >= 60 * minutes
        return trainer.strategy.broadcast(is_over)

    def _save(self, trainer: pl.Trainer, *, on_request: bool = False, for_best: bool = False) -> None:
        step = trainer.global_step
        if step == self._saved_step:
            return
        module: Any = trainer.lightning_module
        module.require_finite_weights()
        validation = "done" if for_best else "due" if self._validates else None
        options = {"on_request": on_request, "for_best": for_best, "validation": validation}
        trainer.save_checkpoint(self._directory / checkpoint_name(step), weights_only=False, storage_options=options)
        self._saved_step = step
        if not for_best:
            self._saved_time = time.monotonic()
        self._deletes_next = True

    def _delete_superseded(self, trainer: pl.Trainer) -> None:
        """Delete checkpoints that are not kept; every rank must call this."""
        self._deletes_next = False
        if trainer.global_rank == 0:
            self.delete_superseded(self._saved_step)
        torch.distributed.barrier()

    def delete_superseded(self, newest: int) -> None:
        """Delete checkpoints that are not kept; called on one rank.

        This is also done after the first step of an attempt, since the last attempt may have been killed before it.

        Args:
            newest: Step of the checkpoint that training has just saved or gone on from.
        """
        found = self._usable()
        if found and found[max(found)][1].validation == "due":
            return  # its validation loss is not known yet
        monitor = self._config.monitor or ""
        passing = {step for step, (_, information) in found.items() if information.on_request}
        best = best_step(_own_losses(found)) if self._config.keeps_best else None
        values: dict[int, float] = {}
        for step, (_, information) in found.items():
            if information.for_best and self._config.keeps_best:
                passing |= {step} - {best}
            elif step not in passing:
                values[step] = information.metrics.get(monitor, math.nan)
        for step in checkpoints_to_delete(values, self._config, best) | (passing - {newest}):
            if is_needed(found[step][0]):
                continue
            try:
                remove_directory(found[step][0])
            except OSError as error:
                print(f"{found[step][0]}: cannot be removed: {error.strerror}", flush=True)

    def _usable(self) -> dict[int, tuple[Path, CheckpointInformation]]:
        """Return the usable checkpoints on disk, by step.

        A checkpoint that cannot be used does not count, but it stays, since it may still be of use; it is reported
        once.
        """
        found: dict[int, tuple[Path, CheckpointInformation]] = {}
        for path in list_checkpoints(self._directory):
            try:
                information = recorded_information(path)
            except CheckpointError as error:
                if path not in self._unusable:
                    self._unusable.add(path)
                    print(f"{error}; it stays as it is and does not count among those that are kept", flush=True)
                continue
            found[information.step] = (path, information)
        return found


def _own_losses(found: dict[int, tuple[Path, CheckpointInformation]]) -> dict[int, float]:
    """Return the validation losses of the weights in permanent checkpoints, by step."""
    told = {step: information for step, (_, information) in found.items() if not information.on_request}
    losses = {step: own_loss(information.validation, information.metrics) for step, information in told.items()}
    return {step: loss for step, loss in losses.items() if loss is not None}


def _end_loops(trainer: pl.Trainer) -> None:
    """Bring Lightning's counts to the end of the last step, from wherever it was interrupted.

    They are then as after any save of a step: it is processed, but not yet completed.
    """
    loop, step = trainer.fit_loop.epoch_loop, trainer.global_step
    for progress in (loop.batch_progress.total, loop.batch_progress.current):
        progress.ready = progress.started = progress.processed = step
        progress.completed = step - 1
    loop._batches_that_stepped = step - 1
    for progress in (loop.val_loop.batch_progress.total, loop.val_loop.batch_progress.current):
        progress.reset()
