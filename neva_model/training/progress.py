"""Progress as lines of a log, readable in a terminal, a file and a pipe alike."""

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

__all__ = ["ProgressLines"]


class ProgressLines(ProgressBar):
    """Prints one line every `log_every_n_steps`: step, loss, learning rate, speed and the time that is left."""

    def __init__(self) -> None:
        """Print from rank 0."""
        super().__init__()
        self._started = 0.0
        self._first_step = 0
        self._is_enabled = True

    def disable(self) -> None:
        """Print nothing: Lightning calls this on every rank but 0."""
        self._is_enabled = False

    def enable(self) -> None:
        """Print again."""
        self._is_enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line when one is due."""
        step, last = trainer.global_step, trainer.max_steps
        every = trainer.log_every_n_steps
        if not self._is_enabled or (step % every and step != last):
            return
        metrics = trainer.callback_metrics
        seconds = (time.perf_counter() - self._started) / max(1, step - self._first_step)
        remaining = time.strftime("%H:%M:%S", time.gmtime((last - step) * seconds))
        print(
            f"step {step}/{last}  loss {metrics['reduced_train_loss']:.4f}  lr {metrics['lr']:.3g}  "
            f"grad norm {metrics['grad_norm']:.3g}  {metrics['tokens_per_second']:.0f} tokens/s  {remaining} left",
            flush=True,
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the validation loss."""
        if self._is_enabled and "val_loss" in trainer.callback_metrics:
            loss = trainer.callback_metrics["val_loss"]
            print(f"step {trainer.global_step}/{trainer.max_steps}  val loss {loss:.4f}", flush=True)
