"""The whole of LLaVA-1.5 by one command, with a stage that fails on the way: real training, real tools."""

import json
import time

import pytest

from executors import find_run
from tests.end_to_end.world import make_world, nemo_run

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


def test_a_failing_stage_resumed_runs_itself_and_what_comes_after(tmp_path):
    world = make_world(tmp_path)
    captions = [
        {
            "image": sample["image"],
            "conversations": [{"from": "human", "value": "<image>"}, sample["conversations"][1]],
        }
        for sample in world.samples
        if "image" in sample
    ]
    shared = [word for word in world.tiny() if not word.startswith("data.data_path=")]
    words = [
        *shared,
        f"pretrain.data.data_path={world.write('captions.json', captions)}",
        f"finetune.data.data_path={world.data.name}",
        f"evaluate.data={world.data.name}",
        f"evaluate.image_folder={world.images.name}",
    ]
    nemo_run("llava.pipeline", *words, "--name", "whole", "--detach", cwd=world.folder)
    run = find_run("whole", world.folder / "runs")
    hidden = world.data.with_name("hidden")
    world.data.rename(hidden)  # before stage 2 begins: stage 1 takes seconds to import torch
    assert run.wait() == 2
    assert run.status().reason.startswith("finetune failed: data.data_path=")
    assert run.status().reason.endswith("; not run: export, evaluate")
    first = (run.path / "stages" / "pretrain" / "state.json").read_text()
    assert json.loads(first)["state"] == "succeeded"

    hidden.rename(world.data)
    started = time.time()
    done = nemo_run("resume", "whole", cwd=world.folder)
    assert (run.path / "stages" / "pretrain" / "state.json").read_text() == first
    projector = next(line for line in done.stdout.splitlines() if "projector: loaded from" in line)
    assert f"{run.path}/stages/pretrain/checkpoints/step-00000003" in projector
    exported = run.path / "stages" / "export" / "exported"
    assert json.loads((exported / "config.json").read_text())["architectures"] == ["LlavaForConditionalGeneration"]
    answers = (run.path / "stages" / "evaluate" / "predictions.jsonl").read_text().splitlines()
    assert len(answers) == sum(len(sample["conversations"]) // 2 for sample in world.samples)
    written = [json.loads((run.path / "stages" / name / "state.json").read_text()) for name in ("finetune", "export")]
    assert all(state["attempt"] == 1 for state in written)
    table = nemo_run("status", "whole", cwd=world.folder).stdout.partition("STAGE ")[2].splitlines()[1:]
    assert [row.split()[:2] for row in table] == [
        [name, "succeeded"] for name in ("pretrain", "finetune", "export", "evaluate")
    ]
    assert started < (run.path / "stages" / "finetune" / "state.json").stat().st_mtime
