"""The loggers of metrics: a CSV file that survives resumes, TensorBoard, and optionally Weights & Biases."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from neva_model.training.failures import Failures
from neva_recipes.config import LoggingConfig, RunError
from neva_recipes.run_directory.layout import METRICS, metrics_file

__all__ = ["CsvLogger", "build_loggers"]


class CsvLogger(Logger):
    """One CSV file for the whole life of a run.

    Lightning's CSVLogger starts a new file whenever a run is resumed. This logger continues the file. Rows of steps
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
        self._temporary = path.with_suffix(".incomplete")
        self._rows = [row for row in _read_rows(path) if int(row["step"]) <= resumed_step]
        self._sweep()

    @property
    def name(self) -> str:
        """The name that Lightning uses for the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Empty, since a run has only one file."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, object] | Namespace, *args: object, **kwargs: object) -> None:
        """Do nothing: the recipe is saved in the run directory."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the metrics of a step; several calls for the same step make one row."""
        # A row describes the state after its step, as a checkpoint does.
        done = str(_steps_done(step))
        values = {name: f"{value:.8g}" for name, value in metrics.items() if name != "epoch"}
        if self._rows and self._rows[-1]["step"] == done:
            self._rows[-1].update(values)
        else:
            self._rows.append({"step": done, **values})
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the file anew, first under a temporary name so that a reader always sees it complete."""
        columns = list(dict.fromkeys(column for row in self._rows for column in row))
        with self._temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        self._temporary.replace(self._path)

    @rank_zero_only
    def _sweep(self) -> None:
        """Remove the temporary file of a killed process."""
        self._temporary.unlink(missing_ok=True)


class _TensorBoard(TensorBoardLogger):
    """Lightning's, with the steps of the CSV file, and once each in a run that is resumed."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step but for `epoch`: to Lightning a run is one, whatever its passes."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        super().log_metrics(values, _steps_done(step))


class _WeightsAndBiases(WandbLogger):
    """Lightning's, with the steps of the CSV file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step."""
        super().log_metrics(metrics, _steps_done(step))


def _steps_done(step: int | None) -> int:
    """Return the optimizer steps taken, of a step that Lightning counts from zero."""
    return (0 if step is None else step) + 1


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def build_loggers(
    config: LoggingConfig, run_directory: Path, name: str, resumed_step: int, failures: Failures
) -> list[Logger]:
    """Return the loggers of a run.

    If a logger fails, the run ends after the step, which is saved first.

    Raises:
        RunError: The recipe asks for Weights & Biases, but it is not installed.
    """
    metrics = run_directory / METRICS
    metrics.mkdir(exist_ok=True)
    # Steps that are trained again after a crash are dropped, as from the CSV file.
    purge = resumed_step + 1 if resumed_step else 0
    loggers: list[Logger] = [
        CsvLogger(metrics_file(run_directory), resumed_step),
        _TensorBoard(run_directory, name=METRICS, version="", default_hp_metric=False, purge_step=purge),
    ]
    if config.wandb_project is not None:
        try:
            loggers.append(
                _WeightsAndBiases(
                    name=name, project=config.wandb_project, entity=config.wandb_entity, save_dir=run_directory, id=name
                )
            )
        except ModuleNotFoundError:
            raise RunError(
                "logging.wandb_project is set but wandb is not installed: pip install 'neva-recipes[wandb]'"
            ) from None
    for logger in loggers:
        what = f"metrics cannot be written ({type(logger).__name__})"
        for method in ("log_metrics", "save", "finalize"):
            setattr(logger, method, failures.guarded(getattr(logger, method), what))
    return loggers
