"""Progress as lines of a log, readable in a terminal, a file and a pipe."""

import time
from collections.abc import Mapping

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

from neva_recipes.run_directory.metrics import VAL_LOSS, VAL_PERPLEXITY, file_of_metric, metric_of_file

__all__ = ["ProgressLines", "progress_line"]

_RANK_COLUMNS = len("[0] ")
"""Columns before a line in the log of several ranks."""


def progress_line(step: int, last: int, metrics: Mapping[str, float], seconds: float, width: int) -> str:
    """Return the line about a step.

    Args:
        step: Steps taken.
        last: Steps of the run.
        metrics: Metrics logged at the step.
        seconds: Time left.
        width: Columns of the log. A line that is too long gets narrower gaps, then fewer parts.
    """
    loss = metrics["reduced_train_loss"]
    parts = (
        f"step {step}/{last}",
        f"loss {loss:.4f}" if loss < 10 else f"loss {loss:.5g}",
        f"lr {metrics['lr']:.2g}",
        f"grad {_short(metrics['grad_norm'], 2)}",
        f"{_short(metrics['tokens_per_second'], 3)} tok/s",
        f"{_time_text(seconds)} left",
    )
    shortest = " ".join(parts[:-1])
    lines = ("  ".join(parts), " ".join(parts))
    return next((line for line in lines if len(line) <= width - _RANK_COLUMNS), shortest)


def _short(value: float, digits: int) -> str:
    """Return a number with so many digits, and with k, M or G instead of many zeros."""
    units = ["G", "M", "k", ""]
    while (rounded := float(f"{value:.{digits}g}")) >= 1000 and len(units) > 1:
        value /= 1000
        units.pop()
    return f"{rounded:g}{units[-1]}"


def _time_text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h" if days else f"{hours}:{minutes:02}:{seconds:02}"


class ProgressLines(ProgressBar):
    """Prints one line every `log_every_n_steps`: step, loss, learning rate, speed and the time left."""

    def __init__(self, width: int) -> None:
        """Print from rank 0.

        Args:
            width: Columns of the log.
        """
        super().__init__()
        self._width = width
        self._started = 0.0
        self._first_step = 0
        self._has_stepped = False
        self._is_enabled = True

    def disable(self) -> None:
        """Print nothing; Lightning calls this on every rank but 0."""
        self._is_enabled = False

    def enable(self) -> None:
        """Print again."""
        self._is_enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_step, self._has_stepped = time.perf_counter(), trainer.global_step, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Print a line when one is due."""
        step, last = trainer.global_step, trainer.max_steps
        every, now = trainer.log_every_n_steps, time.perf_counter()
        seconds = (now - self._started) / max(1, step - self._first_step)
        if not self._has_stepped:
            # The first step of an attempt compiles kernels and fills caches: it tells nothing of the others.
            self._started, self._first_step, self._has_stepped = now, step, True
        if not self._is_enabled or (step % every and step != last):
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        print(progress_line(step, last, values, (last - step) * seconds, self._width), flush=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the validation loss, and below it that of each file where there are several."""
        metrics = trainer.callback_metrics
        if not self._is_enabled or VAL_LOSS not in metrics:
            return
        print(f"step {trainer.global_step}/{trainer.max_steps}  val loss {metrics[VAL_LOSS]:.4f}", flush=True)
        for name, loss in metrics.items():
            if (file := file_of_metric(name, VAL_LOSS)) is not None:
                perplexity = metrics.get(metric_of_file(VAL_PERPLEXITY, file))
                more = "" if perplexity is None else f"  perplexity {perplexity:.4g}"
                print(f"  {file}  val loss {loss:.4f}{more}", flush=True)
