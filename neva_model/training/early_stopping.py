"""Early stopping that decides the same in a resumed run as in an uninterrupted one."""

from collections.abc import Mapping

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping

from neva_model.checkpoints.information import CheckpointInformation

__all__ = ["StopEarly"]


class StopEarly(EarlyStopping):
    """Lightning's early stopping, which also counts the validation after the checkpoint that it was saved in."""

    def __init__(self, monitor: str, mode: str, patience: int, resumed: CheckpointInformation | None) -> None:
        """Stop after `patience` validations without improvement.

        Args:
            monitor: The metric.
            mode: `min` or `max`, whichever is better.
            patience: Number of validations without improvement.
            resumed: Information on the checkpoint that training goes on from; `None` for a fresh start.
        """
        super().__init__(monitor, mode=mode, patience=patience)
        self._resumed = resumed

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Restore the counts; the patience is that of the recipe."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the validation that was added to the checkpoint; a run that had stopped stays stopped."""
        resumed = self._resumed
        if resumed is not None and resumed.validation == "done" and self.monitor in resumed.metrics:
            trainer.callback_metrics[self.monitor] = torch.tensor(resumed.metrics[self.monitor])
            self.on_validation_end(trainer, pl_module)
        elif self.wait_count >= self.patience:
            trainer.should_stop = True
            self._tell(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if the patience is over, and print a line about it."""
        super().on_validation_end(trainer, pl_module)
        self._tell(trainer)

    def _tell(self, trainer: pl.Trainer) -> None:
        if trainer.should_stop and trainer.global_rank == 0:
            print(
                f"stopped early at step {trainer.global_step}: {self.monitor} has not improved for "
                f"{self.wait_count} validations (trainer.early_stopping_patience={self.patience})",
                flush=True,
            )
