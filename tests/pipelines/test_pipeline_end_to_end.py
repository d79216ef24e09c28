"""The whole of LLaVA-1.5 by one command, with a stage that fails on the way: and a sweep: real training, real tools."""

import pytest

from tests.pipelines.training import check_results, local_pipeline, local_sweep

__all__ = ["local_pipeline", "local_sweep"]

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


def test_a_failing_stage_resumed_runs_itself_and_what_comes_after(local_pipeline):
    world, run, printed = local_pipeline
    check_results(run, world)
    assert "[pretrain]" not in printed
    loaded = next(line for line in printed.splitlines() if "projector: loaded from" in line)
    assert loaded.startswith("[finetune] ") and "/stages/pretrain/checkpoints/step-00000003" in loaded
    report = [line for line in printed.splitlines() if line.startswith("[evaluate] ")]
    assert any("Which colour is this?" in line for line in report)


def test_a_failed_point_of_a_sweep_is_mended_by_itself(local_sweep):
    _, rows = local_sweep
    losses = [float(row[4]) for row in rows]
    # The higher the rate, the more is learnt in two steps.
    assert losses[0] < losses[2] < losses[1]
    assert [row[3] for row in rows] == ["3", "3", "3"]
