"""What the README shows works as it stands there."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

import executors
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import recipe_to_yaml, set_field

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
(SNIPPET,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^    nemo-run (.*?)(?:  +#.*)?$", README, re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    Image.new("RGB", (32, 32)).save(tmp_path / "digit.png")
    question = {"from": "human", "value": "<image>\nWhich digit?"}
    answers = [{"from": "gpt", "value": f"A seven, seen {number} times."} for number in range(1000)]
    for name in ("captions.json", "chats.json"):
        # As many as the published steps do not repeat a thousand times.
        samples = [{"image": "digit.png", "conversations": [question, answer]} for answer in answers]
        (tmp_path / name).write_text(json.dumps(samples))
    pretrained = executors.plan_job(llava.pretrain(), runs_dir=tmp_path / "runs")
    checkpoint = pretrained.run_dir / "checkpoints" / "step-2181"
    checkpoint.mkdir(parents=True)
    (pretrained.run_dir / "job.json").write_text(pretrained.to_json())
    (checkpoint / "checkpoint.json").write_text('{"files": {}}')
    (checkpoint / "recipe.yaml").write_text(recipe_to_yaml(llava.pretrain()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_plan_a_run(command, folder, capfd):
    words = shlex.split(command)
    assert main([*words, *(() if "--dry-run" in words else ("--dry-run",))]) == 0
    out, err = capfd.readouterr()
    # A long path of the Python puts the rest of the command on a line of its own.
    assert "-m neva_model.worker" in " ".join(out.replace("\\\n", " ").split())
    if "data.data_path=" in command:
        # What this machine is too small for is told too.
        of_machine = ("this machine has no GPU", "of its disk are free", "a launch from this machine would be refused")
        told = [line for line in err.splitlines() if not any(words in line for words in of_machine)]
        assert len(told) == 1 and "--dry-run wrote and started nothing" in told[0]


def test_the_way_from_a_clone_to_a_first_command_is_in_the_order_of_need():
    lines = re.findall(r"^    (.*?)(?:  +#.*)?$", README, re.MULTILINE)
    first = lines[: next(number for number, line in enumerate(lines) if line.startswith("nemo-run ")) + 1]
    assert first[:2] == ["git clone ... && cd ...", "make install"]
    # The folder that is activated is the one that `make install` makes.
    shown = subprocess.run(["make", "-n", "-B", "install"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert first[2] == f". {re.search(r'-m venv (.+)', shown.stdout)[1]}/bin/activate"
    assert "-e '.[dev,demo]'" in shown.stdout


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)\b", README))))
def test_what_the_readme_makes_is_in_the_makefile(target):
    subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_there_is_a_command_for_both_stages():
    assert any(command.startswith("llava.pretrain") for command in COMMANDS)
    assert any("model.projector.from_pretrained=" in command for command in COMMANDS)


def test_the_recipe_in_python_is_complete(folder):
    composing, _, _ = SNIPPET.partition("errors = ")
    names = {}
    exec(composing, names)
    job = executors.plan_job(names["recipe"])
    assert job.missing == ()
    assert job.layout.world_size == 8
    assert "  image_size: 224\n" not in job.recipe_yaml.partition("vision:")[0]
    assert "    image_size: 224\n" in job.recipe_yaml
    assert "  tensor_model_parallel_size: 8\n" in job.recipe_yaml


def test_the_snippet_tells_what_a_machine_without_gpus_lacks(folder, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    exec(SNIPPET, {})
    assert "this machine has no GPU" in capsys.readouterr().out
    assert [path.name for path in (folder / "runs").iterdir()] == [
        executors.find_run("llava.pretrain", folder / "runs").name
    ]


@pytest.mark.slow
def test_the_run_in_python_runs(world, tmp_path, monkeypatch, capsys):
    """The lines that start it, with a recipe that a laptop can run."""
    _, _, starting = SNIPPET.partition("errors = ")
    monkeypatch.chdir(world.folder)
    recipe = llava.finetune(size="tiny")
    for word in world.tiny(trainer__max_steps=1)[1:]:
        set_field(recipe, *word.split("=", 1))
    starting = f"errors = {starting}".replace("check=True", f"check=True, runs_dir={str(tmp_path)!r}")
    names = {"executors": executors, "recipe": recipe}
    exec(starting, names)
    assert capsys.readouterr().out.splitlines()[-1].startswith("Point(step=1, value=")
    assert (names["run"].path / "checkpoints" / "step-00000001").is_dir()
