"""The loggers of a run count the same steps."""

import csv
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import lightning.pytorch.loggers.wandb
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from neva_model.training.failures import Failures
from neva_model.training.loggers import build_loggers
from neva_recipes.config import LoggingConfig


class _Run:
    """Stands where a run of Weights & Biases stands, and keeps what it is told."""

    def __init__(self, **settings: Any) -> None:
        self.logged: list[dict[str, float]] = []

    def log(self, metrics: dict[str, float]) -> None:
        self.logged.append(metrics)

    def define_metric(self, name: str, **_: Any) -> None:
        """Take every axis."""


@pytest.fixture
def wandb_run(monkeypatch: pytest.MonkeyPatch) -> _Run:
    """Put a package in place of wandb, and return the run that it begins."""
    run = _Run()
    package, library, its_run = ModuleType("wandb"), ModuleType("wandb.sdk.lib"), ModuleType("wandb.wandb_run")
    package.run, package.init = None, lambda **_: run  # type: ignore[attr-defined]
    library.RunDisabled, its_run.Run = SimpleNamespace, _Run  # type: ignore[attr-defined]
    for module in (package, ModuleType("wandb.sdk"), library, its_run):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(lightning.pytorch.loggers.wandb, "_WANDB_AVAILABLE", True)
    return run


def test_every_logger_counts_the_steps_that_are_done(tmp_path: Path, wandb_run: _Run) -> None:
    loggers = build_loggers(LoggingConfig(wandb_project="digits"), tmp_path, "digits", 0, Failures())
    for step, loss in enumerate((2.0, 1.5, 1.0)):  # Lightning counts from zero
        for logger in loggers:
            logger.log_metrics({"reduced_train_loss": loss, "epoch": 0.0}, step)
            logger.save()
    expected = [(1, 2.0), (2, 1.5), (3, 1.0)]
    with (tmp_path / "metrics" / "metrics.csv").open(newline="") as file:
        assert [(int(row["step"]), float(row["reduced_train_loss"])) for row in csv.DictReader(file)] == expected
    events = EventAccumulator(str(tmp_path / "metrics"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("reduced_train_loss")] == expected
    logged = [(entry["trainer/global_step"], entry["reduced_train_loss"]) for entry in wandb_run.logged]
    assert logged == expected
