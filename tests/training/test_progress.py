"""The lines that a training prints fit a terminal of 80 columns, also behind the number of a rank."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from neva_model.log_width import log_width
from neva_model.training.progress import ProgressLines, progress_line


def line(
    step: int, last: int, loss: float, lr: float, norm: float, speed: float, seconds: float, width: int = 80
) -> str:
    names = ("reduced_train_loss", "lr", "grad_norm", "tokens_per_second")
    return progress_line(step, last, dict(zip(names, (loss, lr, norm, speed), strict=True)), seconds, width)


def test_what_it_says() -> None:
    assert line(1200, 5198, 0.12345, 1.98e-5, 0.1234, 12345, 3723) == (
        "step 1200/5198  loss 0.1235  lr 2e-05  grad 0.12  12.3k tok/s  1:02:03 left"
    )
    assert line(10, 400, 12.3456, 3e-3, 1234, 999.9, 61) == (
        "step 10/400  loss 12.346  lr 0.003  grad 1.2k  1k tok/s  0:01:01 left"
    )
    assert line(1, 2, 2.0, 0.0, 99.9, 1234567, 3 * 86400 + 7200).endswith("grad 100  1.23M tok/s  3d 2h left")


def test_the_first_step_of_an_attempt_does_not_count_for_the_time_left(monkeypatch, capsys) -> None:
    """A resume at step 10 of 20: 100 s for the first step, as kernels are compiled, then 2 s for each."""
    clock = [50.0]
    monkeypatch.setattr("neva_model.training.progress.time.perf_counter", lambda: clock[0])
    metrics = dict.fromkeys(("reduced_train_loss", "lr", "grad_norm", "tokens_per_second"), torch.tensor(1.0))
    trainer: Any = SimpleNamespace(global_step=10, max_steps=20, log_every_n_steps=1, callback_metrics=metrics)
    lines: Any = ProgressLines(80)
    lines.on_train_start(trainer, None)
    for seconds in (100, 2, 2, 2):
        trainer.global_step += 1
        clock[0] += seconds
        lines.on_train_batch_end(trainer, None, None, None, 0)
    left = [line.split()[-2] for line in capsys.readouterr().out.splitlines()]
    assert left == ["0:15:00", "0:00:16", "0:00:14", "0:00:12"]


def test_a_narrow_log_gets_less(tmp_path: Path) -> None:
    step = (1200, 5198, 0.12345, 1.98e-5, 0.1234, 12345, 3723)
    stage = tmp_path / "pipe" / "stages" / "pretrain"
    stage.mkdir(parents=True)
    assert log_width(stage) == 80
    (tmp_path / "pipe" / "pipeline.json").write_text("{}")
    assert log_width(stage) == 80 - len("[pretrain] ")
    assert line(*step, width=75) == "step 1200/5198 loss 0.1235 lr 2e-05 grad 0.12 12.3k tok/s 1:02:03 left"
    assert line(*step, width=log_width(stage)) == "step 1200/5198 loss 0.1235 lr 2e-05 grad 0.12 12.3k tok/s"


@given(
    st.integers(1, 99_999),
    st.floats(0, 999),
    st.floats(0, 1),
    st.floats(0, 1e8),
    st.floats(0.01, 1e9),
    st.floats(0, 1e7),
)
def test_it_fits(step: int, loss: float, lr: float, norm: float, speed: float, seconds: float) -> None:
    text = line(step, 99_999, loss, lr, norm, speed, seconds)
    assert len(text) <= 76
    assert "e+" not in text
