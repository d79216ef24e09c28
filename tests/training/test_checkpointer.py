"""Which checkpoints are kept."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_model.training.checkpointer import Checkpointer, checkpoints_to_delete
from neva_recipes.config import CheckpointConfig
from neva_recipes.run_directory.names import list_checkpoints, step_of
from neva_recipes.storage.best import best_checkpoint
from neva_recipes.storage.checkpoints import read_record, record_text

NAN = math.nan


def test_best_by_metric_and_newest() -> None:
    config = CheckpointConfig(save_top_k=2, monitor="val_loss", save_last=True)
    assert checkpoints_to_delete({10: 0.5, 20: 0.2, 30: 0.3, 40: 0.9}, config) == {10}


def test_larger_is_better() -> None:
    config = CheckpointConfig(save_top_k=1, monitor="val_loss", mode="max", save_last=False)
    assert checkpoints_to_delete({10: 0.5, 20: 0.2, 30: 0.3}, config) == {20, 30}


def test_without_metric_the_newest_are_best() -> None:
    config = CheckpointConfig(save_top_k=2, save_last=False)
    assert checkpoints_to_delete({10: NAN, 20: NAN, 30: NAN}, config) == {10}


def test_all_are_kept() -> None:
    assert checkpoints_to_delete({10: 1.0, 20: 2.0}, CheckpointConfig(save_top_k=-1)) == set()


def test_a_missing_metric_is_worst() -> None:
    config = CheckpointConfig(save_top_k=1, monitor="val_loss", save_last=False)
    assert checkpoints_to_delete({10: NAN, 20: 5.0}, config) == {10}


@given(
    values=st.dictionaries(st.integers(0, 1000), st.floats(allow_infinity=False), max_size=8),
    top_k=st.integers(0, 5),
    has_monitor=st.booleans(),
)
def test_deleting_as_they_come_keeps_what_deleting_at_the_end_keeps(
    values: dict[int, float], top_k: int, has_monitor: bool
) -> None:
    """Retention after every save equals one clean-up at the end, but for the newest of each moment."""
    config = CheckpointConfig(save_top_k=top_k, monitor="val_loss" if has_monitor else None)
    present: dict[int, float] = {}
    for step in sorted(values):
        present[step] = values[step]
        for old in checkpoints_to_delete(present, config):
            del present[old]
    assert set(values) - checkpoints_to_delete(values, config) <= set(present)
    assert len(present) <= top_k + 1


class Killed(Exception):
    """Stands for the end of a process."""


class Training(Checkpointer):
    """A checkpointer whose trainer counts steps, validates every few of them, and is killed before some call."""

    def __init__(self, run: Path, config: CheckpointConfig, losses: list[float], interval: int, calls: int) -> None:
        self.checkpoints = run / "checkpoints"
        found = list_checkpoints(self.checkpoints)
        record = read_record(found[-1]) if found else {"validation": None, "metrics": {}}
        super().__init__(
            self.checkpoints, config, SimpleNamespace(is_pending=False), record["validation"], validates_first=False
        )
        self.losses, self.interval, self.calls = losses, interval, calls
        self.trainer: Any = SimpleNamespace(
            global_step=step_of(found[-1]) if found else 0,
            global_rank=0,
            max_steps=len(losses),
            should_stop=False,
            num_val_batches=[1],
            val_check_batch=interval,
            callback_metrics={name: torch.tensor(value) for name, value in record["metrics"].items()},
            lightning_module=SimpleNamespace(require_finite_weights=lambda: None),
            strategy=SimpleNamespace(broadcast=lambda value: value),
            save_checkpoint=self.write,
        )

    def run(self) -> None:
        trainer = self.trainer
        self.on_train_start(trainer, None)
        while trainer.global_step < trainer.max_steps:
            self.count()
            trainer.global_step += 1
            self.on_train_batch_end(trainer, SimpleNamespace(), None, None, 0)
            if trainer.global_step % self.interval == 0:
                self._validate_at_once(trainer, None)
        self.on_train_end(trainer, None)
        self.delete_superseded(trainer.max_steps)

    def count(self) -> None:
        self.calls -= 1
        if self.calls == 0:
            raise Killed

    def write(self, path: Path, weights_only: bool, storage_options: dict[str, Any]) -> None:
        self.count()
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if storage_options["validation"] == "due":
            metrics = {}
        common = {"consumed_samples": 0, "projector_digest": None, "world_size": 1, "has_average": False}
        layout = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1}
        record = {"step": self.trainer.global_step, "metrics": metrics, **common, **layout, **storage_options}
        path.mkdir(parents=True)
        (path / "checkpoint.json").write_text(record_text(record))

    def _validate_at_once(self, trainer: Any, pl_module: Any) -> None:
        self.count()
        trainer.callback_metrics["val_loss"] = torch.tensor(self.losses[trainer.global_step - 1])
        self.on_validation_end(trainer, pl_module)

    def _stop_if_requested(self, trainer: Any) -> None:
        """Nobody asks."""


def kept_steps(run: Path) -> set[int]:
    return {step_of(path) or 0 for path in list_checkpoints(run / "checkpoints")}


@settings(deadline=None, max_examples=60)
@given(
    order=st.permutations(range(12)),
    interval=st.integers(1, 6),
    every=st.one_of(st.none(), st.integers(1, 6)),
    top_k=st.sampled_from([0, 1, 1, 2, -1]),
    kills=st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=3),
)
def test_the_best_of_the_validations_is_kept_beside_the_last(
    order: list[int], interval: int, every: int | None, top_k: int, kills: list[tuple[int, bool]]
) -> None:
    """By default, whether or not a checkpoint is due where a validation is, and however often the run was killed.

    Some of the kills come slowly enough that the run saves what it has, before its validation or after it.
    """
    losses = [1.0 + number for number in order]
    config = CheckpointConfig(every_n_train_steps=every, save_top_k=top_k)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "barrier", lambda: None)
        run = Path(folder)
        for calls, saves in [*kills, (0, False)]:
            training = Training(run, config, losses, interval, calls)
            try:
                training.run()
            except Killed:
                if saves and training.trainer.global_step:
                    training._save(training.trainer, on_request=True)
        due = sorted({12, *(range(every, 13, every) if every else ())})
        best = min(range(interval, 13, interval), key=lambda step: losses[step - 1])
        expected = {0: {12}, 1: {12, best}, 2: {*due[-2:], best}, -1: set(due)}[top_k]
        assert kept_steps(run) == expected
        if top_k > 0:
            assert best_checkpoint(run) == (run / "checkpoints" / f"step-{best:08d}", losses[best - 1])


def test_a_loss_of_other_weights_ranks_nothing(tmp_path: Path) -> None:
    """A checkpoint between two validations holds the loss of the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "barrier", lambda: None)
        Training(tmp_path, CheckpointConfig(every_n_train_steps=3), [5.0, 1.0, 5.0, 3.0, 5.0, 5.0], 2, 0).run()
    assert kept_steps(tmp_path) == {2, 6}
    record = read_record(tmp_path / "checkpoints" / "step-00000002")
    assert (record["for_best"], record["validation"], record["on_request"]) == (True, "done", False)


def test_a_monitor_decides_alone(tmp_path: Path) -> None:
    config = CheckpointConfig(every_n_train_steps=3, monitor="val_loss", mode="max")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "barrier", lambda: None)
        Training(tmp_path, config, [5.0, 1.0, 7.0, 3.0, 5.0, 5.0, 5.0], 1, 0).run()
    assert kept_steps(tmp_path) == {3, 7}
