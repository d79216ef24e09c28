"""A file with the number of trained steps, since not every step is logged."""

import contextlib
import os
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from neva_recipes.run_directory.progress import steps_file, write_trained_steps

__all__ = ["StepFile"]


class StepFile(Callback):
    """Keeps metrics/step.txt at the step that rank 0 has trained. If it cannot be written, the run does without it."""

    def __init__(self, run_directory: Path) -> None:
        self._path = steps_file(run_directory)
        self._descriptor: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the step from which training goes on."""
        if trainer.global_rank == 0:
            with contextlib.suppress(OSError):
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._write(trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, *_: object
    ) -> None:
        """Write the number of trained steps."""
        self._write(trainer.global_step)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, step: int) -> None:
        if self._descriptor is None:
            return
        try:
            write_trained_steps(self._descriptor, step)
        except OSError:
            # An outdated number is worse than none.
            with contextlib.suppress(OSError):
                self._path.unlink()
