"""How many steps were trained is known to the step, whatever is logged."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neva_model.training import step_file
from neva_model.training.step_file import StepFile
from neva_recipes.run_directory.progress import read_trained_steps, steps_file


def at(step: int, rank: int = 0) -> Any:
    return SimpleNamespace(global_step=step, global_rank=rank)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "metrics").mkdir()
    return tmp_path


def trained(run: Path) -> int | None:
    return read_trained_steps(run, None)


def test_each_step_is_there_once_it_is_trained(run: Path) -> None:
    callback: Any = StepFile(run)
    callback.on_train_start(at(998), None)
    assert trained(run) == 998
    for step in range(999, 1003):
        callback.on_train_batch_end(at(step), None, None)
        assert trained(run) == step
    callback.teardown(at(1002), None, "fit")

    # It goes on from an earlier step.
    callback = StepFile(run)
    callback.on_train_start(at(7), None)
    assert trained(run) == 7


def test_other_ranks_write_nothing(run: Path) -> None:
    callback: Any = StepFile(run)
    callback.on_train_start(at(3, rank=1), None)
    callback.on_train_batch_end(at(4, rank=1), None, None)
    callback.teardown(at(4, rank=1), None, "fit")
    assert not steps_file(run).exists()


def test_a_number_that_cannot_be_kept_up_is_taken_away(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callback: Any = StepFile(run)
    callback.on_train_start(at(3), None)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(step_file, "write_trained_steps", full)
    callback.on_train_batch_end(at(4), None, None)
    callback.on_train_batch_end(at(5), None, None)
    assert not steps_file(run).exists()
    assert read_trained_steps(run, 2) == 2


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    callback: Any = StepFile(tmp_path)  # has no folder for metrics
    callback.on_train_start(at(0), None)
    callback.on_train_batch_end(at(1), None, None)
    callback.teardown(at(1), None, "fit")
    assert trained(tmp_path) is None
