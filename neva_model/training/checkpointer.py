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
    """Saves every N steps or minutes and at the end, and keeps the best and the newest.

    What to keep is decided from the checkpoints on disk, not from remembered state, so a killed run
    that is resumed keeps the same ones as an undisturbed run.
    """

    def __init__(self, directory: Path, config: CheckpointConfig) -> None:
        """Keep checkpoints under `directory`."""
        self._directory = directory
        self._config = config
        self._saved_step = -1
        self._saved_time = time.monotonic()
        self._is_due = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, unless a validation follows whose result the checkpoint should know."""
        every = self._config.every_n_train_steps
        self._is_due |= (every is not None and trainer.global_step % every == 0) or self._minutes_are_over(trainer)
        validation_follows = bool(trainer.num_val_batches) and trainer.global_step % int(trainer.val_check_batch) == 0
        if self._is_due and not validation_follows:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what was waiting for the validation."""
        if self._is_due:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the result of the run."""
        if self._config.save_last or self._config.save_top_k:
            self._save(trainer)

    def _minutes_are_over(self, trainer: pl.Trainer) -> bool:
        minutes = self._config.train_time_interval_minutes
        if minutes is None:
            return False
        is_over = time.monotonic() - self._saved_time >= 60 * minutes
        return trainer.strategy.broadcast(is_over)

    def _save(self, trainer: pl.Trainer) -> None:
        self._is_due = False
        step = trainer.global_step
        if step == self._saved_step:
            return
        trainer.save_checkpoint(self._directory / checkpoint_name(step), weights_only=False)
        self._saved_step, self._saved_time = step, time.monotonic()
        if trainer.global_rank == 0:
            self._delete_superseded()
        torch.distributed.barrier()

    def _delete_superseded(self) -> None:
        found = {
            (information := read_information(path)).step: (path, information)
            for path in list_checkpoints(self._directory)
        }
        monitor = self._config.monitor or ""
        values = {step: information.metrics.get(monitor, math.nan) for step, (_, information) in found.items()}
        for step in checkpoints_to_delete(values, self._config):
            shutil.rmtree(found[step][0], ignore_errors=True)
