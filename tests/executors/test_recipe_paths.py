"""Relative paths of a recipe mean the same wherever the run is used from."""

from pathlib import Path

import fiddle as fdl
import pytest

import executors
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import (
    LlavaDataConfig,
    RecipeError,
    build,
    config,
    is_here_path,
    iterate_fields,
    recipe_from_yaml,
    recipe_to_plain,
    recipe_to_yaml,
    with_absolute_inputs,
)
from neva_recipes.pipeline import Evaluate, Export


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


def put(node, path, value):
    *groups, name = path.split(".")
    for group in groups:
        node = getattr(node, group)
    setattr(node, name, value)


def test_every_field_that_takes_a_path_takes_a_path_object(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    fields = [field.path for field in iterate_fields(llava.finetune("tiny")) if is_here_path(field.annotation)]
    assert {"data.data_path", "data.tokenizer", "model.vision.from_pretrained"} <= set(fields) and len(fields) == 7
    given, texts = llava.finetune("tiny"), llava.finetune("tiny")
    for path in fields:
        put(given, path, Path("x"))
        put(texts, path, "x")
    assert recipe_to_yaml(given) == recipe_to_yaml(texts)
    assert build(given) == build(texts)
    settled = [executors.settle(with_absolute_inputs(recipe)) for recipe in (given, texts)]
    assert recipe_to_plain(settled[0]) == recipe_to_plain(settled[1])
    for path in ("data.data_path", "data.validation_data_path"):
        put(given, path, [Path("x"), "y"])
        put(texts, path, ["x", "y"])
    assert recipe_to_yaml(given) == recipe_to_yaml(texts)
    assert LlavaDataConfig(**{**vars(build(texts).data), "image_folder": Path("x")}).image_folder == "x"


@pytest.mark.parametrize("tool", [config(Export, model=Path("x")), config(Evaluate, model=Path("x"), data=Path("y"))])
def test_tools_take_path_objects(tool):
    texts = {name: str(value) for name, value in tool.__arguments__.items() if isinstance(value, Path)}
    stage = executors.Stage("one", tool)
    assert {name: stage.work.__arguments__[name] for name in texts} == texts
    assert build(stage.work) == build(config(fdl.get_callable(tool), **texts))


def test_a_path_object_elsewhere_is_a_wrong_value():
    recipe = llava.finetune("tiny")
    recipe.name = Path("x")
    with pytest.raises(RecipeError, match=r"^name=PosixPath\('x'\): expected "):
        build(recipe)


def test_a_parameter_that_is_a_path_goes_into_a_field(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.py").write_text(
        "from pathlib import Path\n\nimport fiddle as fdl\n\nfrom neva_recipes import llava\n"
        "from neva_recipes.config import Recipe\n\n\n"
        "def mine(data: Path = Path('held.json')) -> fdl.Config[Recipe]:\n"
        "    recipe = llava.finetune('tiny')\n    recipe.data.data_path = data\n    return recipe\n"
    )
    for words, name in (([], "held.json"), (["data=other.json"], "other.json")):
        main(["mine", "--recipes", "lab.py", *words, "--dry-run"])
        assert f"data_path: {name} " in capsys.readouterr().out
