"""A run that has succeeded, to be resumed."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

import executors
from neva_recipes import llava
from neva_recipes.config import recipe_to_yaml, with_absolute_inputs


@pytest.fixture
def finished(folder):
    """A run that has succeeded, with a checkpoint after ten steps; its program is none of ours."""
    Path("chats.json").write_text(
        '[{"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hi."}]}]'
    )
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.tokenizer = "chats.json", "owner/name"
    recipe.trainer.max_epochs, recipe.trainer.max_steps = None, 10
    recipe.optim.warmup_ratio = 0.0
    job = executors.plan_job(recipe, executors.LocalExecutor(), name="digits")
    run = executors.start_job(dataclasses.replace(job, argv=(sys.executable, "-c", "print('trains')")), detach=True)
    assert run.wait() == 0
    checkpoint = run.path / "checkpoints" / "step-00000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "recipe.yaml").write_text(recipe_to_yaml(with_absolute_inputs(recipe)))
    (checkpoint / "checkpoint.json").write_text(
        json.dumps({"step": 10, "consumed_samples": 1280, "metrics": {"lr": 2.5e-5}})
    )
    return run


def contents(run):
    return {path.relative_to(run.path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
