"""Recipes planned together have the plans that each has by itself."""

import json
import random

import pytest

from neva_recipes import llava
from neva_recipes.config import set_field
from neva_recipes.plan import Planner, plan

CHANGES = [
    {},
    {"optim.lr": "1e-3"},
    {"optim.lr": "0.5", "trainer.seed": "3"},
    {"data.micro_batch_size": "2"},
    {"data.micro_batch_size": "3"},
    {"data.group_by_modality_length": "true"},
    {"data.sequence_length": "64"},
    {"data.data_path": "no such file"},
    {"data.conv_template": "plain"},
    {"model.language.vocab_size": "400"},
    {"model.language.from_pretrained": "missing/folder/here"},
    {"model.vision.image_size": "56"},
    {"model.use_im_start_end": "true"},
    {"parallel.tensor_model_parallel_size": "2", "parallel.sequence_parallel": "true", "trainer.devices": "2"},
    {"parallel.tensor_model_parallel_size": "3"},
    {"trainer.accelerator": "cpu"},
    {"precision.precision": "bf16"},
    {"trainer.devices": "4"},
    {"name": "other"},
]


@pytest.mark.parametrize("seed", range(3))
def test_planned_together_or_alone(tmp_path, seed):
    draw = random.Random(seed)
    turns = [{"from": "human", "value": "word " * 9}, {"from": "gpt", "value": "word"}]
    samples = [{"conversations": [turns[0], {"from": "gpt", "value": "word " * length}]} for length in range(1, 90, 3)]
    (tmp_path / "chats.json").write_text(json.dumps(samples))
    base = {"data.data_path": str(tmp_path / "chats.json"), "data.tokenizer": "owner/name"}
    planner = Planner()
    for _ in range(2):
        for change in draw.sample(CHANGES, len(CHANGES)):
            recipe = llava.finetune("tiny")
            for path, text in {**base, **change}.items():
                set_field(recipe, path, text)
            assert planner.plan(recipe) == plan(recipe), change
