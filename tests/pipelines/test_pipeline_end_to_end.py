"""The whole of LLaVA-1.5 by one command, with a stage that fails on the way: real training, real tools."""

import pytest

from tests.pipelines.training import check_results, local_pipeline

__all__ = ["local_pipeline"]

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


def test_a_failing_stage_resumed_runs_itself_and_what_comes_after(local_pipeline):
    world, run, printed = local_pipeline
    check_results(run, world)
    assert "[pretrain]" not in printed
    loaded = next(line for line in printed.splitlines() if "projector: loaded from" in line)
    assert loaded.startswith("[finetune] ") and "/stages/pretrain/checkpoints/step-00000003" in loaded
    report = [line for line in printed.splitlines() if line.startswith("[evaluate] ")]
    assert any("Which colour is this?" in line for line in report)
