"""chat, evaluate and export: the command line here and the tools in neva_model understand each other."""

import json
import re
from pathlib import Path

import pytest

from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import recipe_to_yaml

ROOT = Path(__file__).parents[2]

TOOLS = {
    "chat": "neva_model/inference/chat.py",
    "evaluate": "neva_model/evaluation/command.py",
    "export": "neva_model/checkpoints/export.py",
}


@pytest.mark.parametrize("command", TOOLS)
def test_both_sides_know_the_same_arguments(command, folder, capsys):
    assert main([command, "--help"]) == 0
    offered = re.findall(r"^  (--[a-z-]+|[A-Z]+)", capsys.readouterr().out, re.MULTILINE)
    understood = re.findall(r'add_argument\("([a-z-]+)"', (ROOT / TOOLS[command]).read_text(encoding="utf-8"))
    positional = {"RUN": "run", "DIR": "directory"}
    assert {positional.get(name, name) for name in offered} - {"--runs-dir"} == set(understood)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["chat", "a dir", "--temperature", "-1"], "error: --temperature=-1: expected 0"),
        (["chat", "a dir", "--conv-template", "vicuna"], "error: --conv-template=vicuna: expected one of plain, v1"),
        (["chat", "a dir", "--seed", "x"], "error: argument --seed: 'x': expected an integer"),
        (
            ["evaluate", "a dir", "--data", "a set.json", "--batch-size", "0"],
            "error: --batch-size=0: expected at least 1",
        ),
        (["chat", "no dir", "--prompt", "x"], "error: no run 'no dir' in runs"),
        (["chat", "no/dir", "--prompt", "x"], "error: no run 'no' in runs, and no folder no/dir"),
        (["chat", "a-dir"], "error: no run 'a-dir' in runs (did you mean 'a dir'?)"),
        (["chat", "./a_dir"], "error: no run './a_dir' in runs, and no folder ./a_dir (did you mean 'a dir'?)"),
        (
            ["chat", "more/otherr-1"],
            "error: no run 'more/otherr-1' in runs (did you mean more/other-1?), and no folder",
        ),
        (["logs", "more/otherr-1"], "error: no run 'more/otherr-1' in runs (did you mean more/other-1?)"),
        (["evaluate", "a dir", "--data", "a-set.json"], "error: --data=a-set.json: no such file (did you mean 'a set"),
        (["evaluate", "a dir", "--data", "a set.json,b.json"], "error: --data=b.json: no such file\n"),
        (["chat", "a dir", "--image", "a-set.json"], "error: --image=a-set.json: no such file (did you mean 'a set"),
        (
            ["evaluate", "a dir", "--data", "a set.json", "--image-folder", "a-dir"],
            "error: --image-folder=a-dir: no such folder (did you mean 'a dir'?)",
        ),
    ],
)
def test_a_mistake_is_told_before_a_model_is_loaded(nemo_run, folder, arguments, answer):
    (folder / "a dir").mkdir()
    (folder / "a set.json").touch()
    (folder / "more" / "other-1").mkdir(parents=True)
    (folder / "more" / "other-1" / "job.json").write_text("{}")
    done = nemo_run(*arguments, check=2)
    assert done.stderr.startswith(answer) and done.stderr.count("\n") == 1
    assert list((folder / "a dir").iterdir()) == []


@pytest.mark.parametrize(("command", "tool"), [("chat", "chat"), ("generate", "texts")])
def test_a_name_is_told_with_the_run_and_the_step_it_stands_for(command, tool, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"neva_model.inference.{tool}.main", lambda words: 0)
    for moment, step in (("20260101-120000", 300), ("20260102-120000", 20)):
        run = tmp_path / "runs" / f"llava.finetune-{moment}"
        checkpoint = run / f"checkpoints/step-{step:08d}"
        checkpoint.mkdir(parents=True)
        recipe = recipe_to_yaml(llava.finetune("tiny"))
        (run / "recipe.yaml").write_text(recipe)
        (run / "state.json").write_text(json.dumps({"state": "succeeded"}))
        job = {"created": moment, "argv": [], "cwd": "", "world_size": 1, "executor": {"kind": "local"}}
        (run / "job.json").write_text(json.dumps({"name": "llava.finetune", **job}))
        (checkpoint / "recipe.yaml").write_text(recipe)
        (checkpoint / "checkpoint.json").write_text(json.dumps({"step": step, "files": {}}))

    def told(word):
        assert main([command, word, "--prompt", "x"]) == 0
        return capsys.readouterr().err

    for name in ("llava.finetune", "latest"):
        assert told(name) == f"note: {name} stands for llava.finetune-20260102-120000, step 20\n"
    own = "llava.finetune-20260101-120000"
    for said in (own, f"runs/{own}", f"runs/{own}/checkpoints/step-00000300"):
        assert told(said) == ""


@pytest.mark.slow
def test_a_directory_without_a_model(nemo_run, folder):
    (folder / "a 'dïr'").mkdir()
    # A name that begins with a dash is no option.
    done = nemo_run("export", "a 'dïr'", "./--help", check=2)
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "a 'dïr': neither a run directory nor a checkpoint" in done.stderr.splitlines()[-1]
    assert [path.name for path in folder.iterdir()] == ["a 'dïr'"]
