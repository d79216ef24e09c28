"""Where metrics go: a CSV file that survives resumes, TensorBoard, and Weights & Biases when asked."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from neva_recipes.config import LoggingConfig, RunError

__all__ = ["CsvLogger", "build_loggers"]


class CsvLogger(Logger):
    """One CSV file for the whole life of a run.

    Lightning's CSVLogger starts a new file whenever a run is resumed. This one continues the file; rows of steps
    that are trained again after a crash are dropped, so that every step appears once.
    """

    def __init__(self, path: Path, resumed_step: int) -> None:
        """Continue the file at `path` after `resumed_step` optimizer steps.

        Args:
            path: The file.
            resumed_step: Steps of the checkpoint that training continues from; 0 for a fresh run.
        """
        super().__init__()
        self._path = path
        self._rows = [row for row in _read_rows(path) if int(row["step"]) <= resumed_step]

    @property
    def name(self) -> str:
        """Name Lightning knows the logger by."""
        return "csv"

    @property
    def version(self) -> str:
        """A run has one file, so there are no versions."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the recipe is saved in the run directory."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the metrics of a step; several calls for one step make one row."""
        # Lightning counts from zero; a row is about the state after its step, as checkpoints are.
        done = str((step or 0) + 1)
        values = {name: f"{value:.8g}" for name, value in metrics.items() if name != "epoch"}
        if self._rows and self._rows[-1]["step"] == done:
            self._rows[-1].update(values)
        else:
            self._rows.append({"step": done, **values})
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the file anew, under a temporary name first so that a reader always sees it whole."""
        columns = list(dict.fromkeys(column for row in self._rows for column in row))
        temporary = self._path.with_suffix(".incomplete")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        temporary.replace(self._path)


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def build_loggers(config: LoggingConfig, run_directory: Path, name: str, resumed_step: int) -> list[Logger]:
    """Return the loggers of a run.

    Raises:
        RunError: Weights & Biases is asked for but not installed.
    """
    metrics = run_directory / "metrics"
    metrics.mkdir(exist_ok=True)
    loggers: list[Logger] = [
        CsvLogger(metrics / "metrics.csv", resumed_step),
        TensorBoardLogger(run_directory, name="metrics", version="", default_hp_metric=False),
    ]
    if config.wandb_project is not None:
        try:
            from lightning.pytorch.loggers import WandbLogger

            loggers.append(
                WandbLogger(
                    name=name, project=config.wandb_project, entity=config.wandb_entity, save_dir=run_directory, id=name
                )
            )
        except ModuleNotFoundError:
            raise RunError(
                "logging.wandb_project is set but wandb is not installed: pip install 'neva-recipes[wandb]'"
            ) from None
    return loggers
