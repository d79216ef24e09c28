"""What the README shows works as it stands there."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import executors
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import recipe_to_yaml, set_field

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
(SNIPPET,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^    nemo-run (.*?)(?:  +#.*)?$", README, re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    Image.new("RGB", (32, 32)).save(tmp_path / "digit.png")
    turns = [{"from": "human", "value": "<image>\nWhich digit?"}, {"from": "gpt", "value": "A seven."}]
    for name in ("captions.json", "chats.json"):
        (tmp_path / name).write_text(json.dumps([{"id": "1", "image": "digit.png", "conversations": turns}]))
    checkpoint = tmp_path / "runs" / "llava.pretrain-..." / "checkpoints" / "step-2181"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.json").write_text('{"files": {}}')
    (checkpoint / "recipe.yaml").write_text(recipe_to_yaml(llava.pretrain()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_plan_a_run(command, folder, capfd):
    words = shlex.split(command)
    assert main([*words, *(() if "--dry-run" in words else ("--dry-run",))]) == 0
    out, err = capfd.readouterr()
    assert "-m neva_model.worker" in out
    if "data.data_path=" in command:
        assert err.count("\n") == 1 and "--dry-run wrote and started nothing" in err


def test_there_is_a_command_for_both_stages():
    assert any(command.startswith("llava.pretrain") for command in COMMANDS)
    assert any("model.projector.from_pretrained=" in command for command in COMMANDS)


def test_the_recipe_in_python_is_complete(folder):
    composing, _, _ = SNIPPET.partition("run = ")
    names = {}
    exec(composing, names)
    job = executors.plan_job(names["recipe"])
    assert job.missing == ()
    assert job.layout.world_size == 8
    assert "  image_size: 224\n" not in job.recipe_yaml.partition("vision:")[0]
    assert "    image_size: 224\n" in job.recipe_yaml
    assert "  tensor_model_parallel_size: 8\n" in job.recipe_yaml


@pytest.mark.slow
def test_the_run_in_python_runs(world, tmp_path, monkeypatch, capsys):
    """The lines that start it, with a recipe that a laptop can run."""
    _, _, starting = SNIPPET.partition("run = ")
    monkeypatch.chdir(world.folder)
    recipe = llava.finetune(size="tiny")
    for word in world.tiny(trainer__max_steps=1)[1:]:
        set_field(recipe, *word.split("=", 1))
    starting = f"run = {starting}".replace("detach=True", f"detach=True, runs_dir={str(tmp_path)!r}")
    names = {"executors": executors, "recipe": recipe}
    exec(starting, names)
    assert capsys.readouterr().out == "running\n"
    assert names["run"].wait() == 0
    assert (names["run"].path / "checkpoints" / "step-00000001").is_dir()
