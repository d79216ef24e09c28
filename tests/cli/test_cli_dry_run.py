"""`--dry-run` and `--help`: instant, complete, and without a trace."""

import json
import re
import shlex
import subprocess
import sys

from neva_recipes import llava
from neva_recipes.config import build, load_recipe, recipe_to_yaml

HEAVY = ("torch", "transformers", "megatron", "lightning", "neva_model", "numpy")

INSTANT = [
    [],
    ["--help"],
    ["list"],
    ["status"],
    ["chat", "--help"],
    ["evaluate", "--help"],
    ["export", "--help"],
    ["llava.finetune", "--help"],
    ["llava.finetune", "--dry-run"],
    ["neva.pretrain", "--dry-run", "size=13b", "optim.lr=1e-4"],
    ["llava.finetune", "--dry-run", "trainer.num_nodes=8", "data.micro_batch_size=2"],
    *(["llava.finetune", "--dry-run", "--format", form] for form in ("yaml", "json", "python", "html")),
]

PROBE = f"""
import sys
from neva_recipes.cli.main import main
for arguments in {INSTANT}:
    assert main(arguments) == 0
    heavy = [name for name in sys.modules if name.split('.')[0] in {HEAVY}]
    assert not heavy, (arguments, heavy)
"""


def test_nothing_heavy_is_imported(folder):
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_script_of_a_dry_run_holds_the_recipe_and_leaves_no_trace(nemo_run, folder):
    overrides = {"data.data_path": 'it\'s a "dätä" file.json', "optim.lr": "3e-4", "data.tokenizer": "$HOME `x`"}
    words = [f"{key}={value}" for key, value in overrides.items()]
    done = nemo_run("llava.finetune", "--dry-run", "size=tiny", *words, "--name", "a 'b' ü", check=0)
    assert list(folder.iterdir()) == []
    assert f"note: data.data_path={shlex.quote(overrides['data.data_path'])}: no such file" in done.stderr
    assert "--dry-run wrote and started nothing" in done.stderr

    expected = llava.finetune("tiny")
    expected.data.data_path, expected.optim.lr = overrides["data.data_path"], 3e-4
    expected.data.tokenizer = overrides["data.tokenizer"]
    assert recipe_to_yaml(expected) not in done.stdout
    assert "Command of 1 process" in done.stdout and "--script prints the script that does" in done.stderr

    # Piped into a shell it writes that recipe; the start itself is left out here.
    done = nemo_run("llava.finetune", "--dry-run", "--script", "size=tiny", *words, "--name", "a 'b' ü", check=0)
    assert list(folder.iterdir()) == []
    assert "no such file" in done.stderr
    script = done.stdout
    assert script.startswith("#!/bin/sh\n")
    starts = [line for line in script.splitlines() if line.startswith("exec ")]
    assert len(starts) == 1
    script = script.replace(starts[0], ":")
    subprocess.run(["sh"], input=script, text=True, check=True, cwd="/", timeout=120)
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("a 'b' ü-")
    assert build(load_recipe(run / "recipe.yaml")) == build(expected)
    assert json.loads((run / "job.json").read_text())["world_size"] == 1


def test_dry_run_says_how_many_processes(nemo_run):
    shown = nemo_run("llava.finetune", "--dry-run", check=0).stdout
    command = re.search(r"^Command of each of 8 processes\n((?:  .*\n)+)", shown, re.MULTILINE)[1]
    words = shlex.split(command.replace("\\\n", " "))
    assert words[words.index("-m") + 1] == "neva_model.worker" and len(shown.splitlines()) < 200
    words = ["size=tiny", "parallel.tensor_model_parallel_size=2", "parallel.pipeline_model_parallel_size=2"]
    assert "Command of each of 4 processes" in nemo_run("llava.finetune", "--dry-run", *words, check=0).stdout


def test_flags_and_overrides_in_any_order(nemo_run):
    words = ["--dry-run", "optim.lr=1e-4", "--name", "x", "size=tiny", "optim.lr=2e-4", "llava.finetune"]
    reordered = nemo_run(*words[:1], "llava.finetune", *words[1:-1], check=0).stdout
    assert "lr: 0.0002" in reordered and "hidden_size: 128" in reordered and "/runs/x-" in reordered


def test_a_saved_recipe_can_be_run(nemo_run, folder):
    recipe = llava.finetune("tiny")
    recipe.optim.lr = 0.25
    (folder / "saved.yaml").write_text(recipe_to_yaml(recipe))
    done = nemo_run("saved.yaml", "--dry-run", "trainer.seed=5", "optim.min_lr=0", check=0)
    assert re.search(r"^    lr: 0.25 +saved.yaml:\d+$", done.stdout, re.MULTILINE)
    assert re.search(r"^\* +seed: 5 +command line, was 1234$", done.stdout, re.MULTILINE)
    assert re.search(r"^\* +min_lr: 0.0 +command line, unchanged$", done.stdout, re.MULTILINE)
    assert "  optim.lr=0.25\n" in nemo_run("saved.yaml", "--help", check=0).stdout
    assert "optim.lrr: no such field" in nemo_run("saved.yaml", "optim.lrr=1", check=2).stderr


USER_FILE = """
from neva_recipes import llava

def digits(steps: int, lr: float = 0.5):
    "Digits of my own."
    recipe = llava.finetune("tiny")
    recipe.trainer.max_steps, recipe.optim.lr = steps, lr
    return recipe
"""


def test_a_file_of_recipes(nemo_run, folder):
    path = folder / "my 'own' rècipes.py"
    path.write_text(USER_FILE, encoding="utf-8")
    name = "my 'own' rècipes.digits"
    listing = nemo_run("list", "--recipes", path.name, check=0).stdout
    assert f"  {name}  Digits of my own." in listing and "llava.finetune" in listing
    for recipe in ("digits", name):
        done = nemo_run(recipe, "steps=77", "--recipes", path.name, "--dry-run", check=0)
        assert "max_steps: 77" in done.stdout and re.search(r"  lr: 0.5 +my .own. .*:\d+\n", done.stdout)
    assert "add steps=VALUE" in nemo_run("digits", "--recipes", path.name, check=2).stderr
    assert "steps='x': expected an integer" in nemo_run("digits", "steps=x", "--recipes", path, check=2).stderr
    # What the first screen proposes can be pasted.
    (proposal,) = re.findall(r"nemo-run (.* --dry-run)", nemo_run("--recipes", path.name, check=0).stdout)
    assert "max_steps: 5" in nemo_run(*shlex.split(proposal), "steps=5", check=0).stdout
    assert list(folder.iterdir()) == [path]


def test_an_installed_package_of_recipes(nemo_run, tmp_path):
    site = tmp_path / "site"
    metadata = site / "mylab_recipes-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "mylab_recipes.py").write_text(USER_FILE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab-recipes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[neva_recipes.recipes]\nmylab.digits = mylab_recipes:digits\n")
    env = {"PYTHONPATH": str(site)}
    listing = nemo_run("list", env=env, check=0).stdout
    assert "package mylab-recipes:\n  mylab.digits  Digits of my own." in listing
    done = nemo_run("mylab.digits", "steps=3", "--dry-run", env=env, check=0)
    assert "max_steps: 3" in done.stdout
    assert "did you mean mylab.digits" in nemo_run("mylab.digit", env=env, check=2).stderr


def test_a_reader_that_has_seen_enough(folder):
    command = f"{shlex.quote(sys.executable)} -m neva_recipes.cli.main llava.finetune --help | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("usage: nemo-run llava.finetune")
    assert done.stderr == ""


def test_a_terminal_that_shows_ascii_only(nemo_run, folder):
    (folder / "ü.py").write_text(USER_FILE)
    done = nemo_run("list", "--recipes", "ü.py", env={"PYTHONIOENCODING": "ascii"}, check=0)
    assert "\\xfc.digits" in done.stdout
