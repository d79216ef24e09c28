"""When checkpoints are written and which are kept."""

import math
import shutil
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from neva_model.checkpoints.information import checkpoint_name, list_checkpoints, read_information
from neva_model.training.stop import is_stop_requested
from neva_recipes.config import CheckpointConfig

__all__ = ["Checkpointer", "checkpoints_to_delete"]


def checkpoints_to_delete(values: dict[int, float], config: CheckpointConfig) -> set[int]:
    """Return the steps whose checkpoints are to be deleted.

    Args:
        values: Of every checkpoint, its step and the monitored value (not-a-number where there was none yet).
        config: How many to keep, and which are best.
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
    return set(values) - kept


class Checkpointer(Checkpoint):
    """Saves every N steps or minutes and at the end, keeps the best and the newest, and stops the run on request.

    What to keep is decided from the checkpoints on disk, not from remembered state, so a killed run
    that is resumed keeps the same ones as an undisturbed run. A checkpoint for a stop between those takes no place from
    them, and goes when the run has got further.

    Attributes:
        is_stopped: Whether the run ended because a rank was asked to stop.
    """

    def __init__(self, directory: Path, config: CheckpointConfig) -> None:
        """Keep checkpoints under `directory`."""
        self._directory = directory
        self._config = config
        self._saved_step = -1
        self._saved_time = time.monotonic()
        self._is_due = False
        self.is_stopped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the first step if that was asked for during the start."""
        self._saved_step = trainer.global_step
        self._stop_if_requested(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, and stop on request, unless a validation follows that belongs to this step."""
        every = self._config.every_n_train_steps
        self._is_due |= (every is not None and trainer.global_step % every == 0) or self._minutes_are_over(trainer)
        validation_follows = bool(trainer.num_val_batches) and trainer.global_step % int(trainer.val_check_batch) == 0
        if not validation_follows:
            self._end_step(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do what was waiting for the validation."""
        self._end_step(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the result of the run."""
        if self.is_stopped:
            return
        if self._config.save_last or self._config.save_top_k:
            self._save(trainer)
        elif trainer.global_rank == 0:
            self._delete_superseded(trainer.global_step)

    def _end_step(self, trainer: pl.Trainer) -> None:
        if self._is_due:
            self._save(trainer)
        if trainer.global_step < trainer.max_steps and not trainer.should_stop:
            self._stop_if_requested(trainer)

    def _stop_if_requested(self, trainer: pl.Trainer) -> None:
        """Stop if any rank was asked to, all ranks at the same step."""
        # Lightning's `reduce_boolean_decision` would wait at a barrier besides.
        requests = torch.tensor(int(is_stop_requested()), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(requests)
        if not requests:
            return
        self._save(trainer, on_request=True)
        self.is_stopped = True
        # With `trainer.should_stop` Lightning would validate once more.
        trainer.fit_loop.epoch_loop.max_steps = trainer.global_step

    def _minutes_are_over(self, trainer: pl.Trainer) -> bool:
        minutes = self._config.train_time_interval_minutes
        if minutes is None:
            return False
        is_over = time.monotonic() - self._saved_time >= 60 * minutes
        return trainer.strategy.broadcast(is_over)

    def _save(self, trainer: pl.Trainer, *, on_request: bool = False) -> None:
        self._is_due = False
        step = trainer.global_step
        if step == self._saved_step:
            return
        trainer.save_checkpoint(
            self._directory / checkpoint_name(step), weights_only=False, storage_options={"on_request": on_request}
        )
        self._saved_step, self._saved_time = step, time.monotonic()
        if trainer.global_rank == 0:
            self._delete_superseded(step)
        torch.distributed.barrier()

    def _delete_superseded(self, newest: int) -> None:
        found = {
            (information := read_information(path)).step: (path, information)
            for path in list_checkpoints(self._directory)
        }
        monitor = self._config.monitor or ""
        passing = {step for step, (_, information) in found.items() if information.on_request}
        values = {
            step: information.metrics.get(monitor, math.nan)
            for step, (_, information) in found.items()
            if step not in passing
        }
        for step in checkpoints_to_delete(values, self._config) | (passing - {newest}):
            shutil.rmtree(found[step][0], ignore_errors=True)
