"""Relative paths of a recipe mean the same wherever the run is used from."""

import executors
from neva_recipes import llava
from neva_recipes.config import recipe_from_yaml


def test_inputs_that_are_there_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.json").write_text("[]")
    (tmp_path / "runs" / "text").mkdir(parents=True)
    recipe = llava.finetune(size="tiny")
    recipe.data.data_path = "chats.json"
    recipe.data.image_folder = "not there"
    recipe.data.tokenizer = "owner/name"
    recipe.model.language.from_pretrained = "runs/text"
    saved = recipe_from_yaml(executors.plan_job(recipe).recipe_yaml)
    assert saved.data.data_path == str(tmp_path / "chats.json")
    assert saved.data.image_folder == "not there"
    assert saved.data.tokenizer == "owner/name"
    assert saved.model.language.from_pretrained == str(tmp_path / "runs" / "text")
    assert recipe.data.data_path == "chats.json"
