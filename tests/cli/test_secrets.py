"""A secret, planted in every place a person could put one by mistake: shown nowhere, written nowhere, told about."""

import subprocess
import sys
from pathlib import Path

import pytest

from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import recipe_to_yaml

TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"
URL = "https://me:hunter2secret@example.org/train.json?x=1"
IN_ENVIRONMENT = "0123456789abcdef0123456789abcdef01234567"  # of no shape; known by the variable it stands in

FORMATS = ("text", "yaml", "json", "python", "html")

USER_FILE = f"""
import os
from neva_recipes import llava
from neva_recipes.config import Recipe

def in_field():
    recipe = llava.finetune("tiny")
    recipe.logging.wandb_entity = "{TOKEN}"
    return recipe

def in_environment():
    recipe = llava.finetune("tiny")
    recipe.logging.wandb_project = os.environ["WANDB_API_KEY"]
    return recipe

def in_number():
    recipe = llava.finetune("tiny")
    recipe.optim.lr = "{TOKEN}"
    return recipe

def in_list():
    recipe = llava.finetune("tiny")
    recipe.model.recompute_modules = ["core_attn", "{TOKEN}"]
    return recipe

def in_name():
    recipe = llava.finetune("tiny")
    recipe.name = "run-{TOKEN}"
    return recipe

def in_group():
    recipe = llava.finetune("tiny")
    recipe.optim = dict(lr="{TOKEN}")
    return recipe

def in_default(token: str = "{TOKEN}"):
    recipe = llava.finetune("tiny")
    recipe.logging.wandb_project = token
    return recipe

def in_message():
    raise RuntimeError("cannot log in with {TOKEN}")

def in_result() -> Recipe:
    return "{TOKEN}"
"""


REFUSED = ("in_field", "in_environment", "in_number", "in_list", "in_name", "in_group", "in_default")
"""Those whose recipe can be made, and holds a secret."""


@pytest.fixture
def nothing_shows(folder, monkeypatch, capfd):
    """Return a function that runs a command line with the exit code expected of it, and looks for the secrets."""
    monkeypatch.setenv("WANDB_API_KEY", IN_ENVIRONMENT)

    def call(*arguments, code=2):
        before = {path for path in folder.rglob("*") if path.is_file()}
        found = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert found == code, err
        for secret in (TOKEN, "hunter2secret", IN_ENVIRONMENT):
            assert secret not in out and secret not in err
            for path in folder.rglob("*"):
                if path.is_file() and path not in before:
                    assert secret not in path.read_text()
        if code:
            assert err.startswith("error: ") and err.count("\n") == 1
        return out + err

    return call


@pytest.mark.parametrize("form", FORMATS)
def test_in_a_field_it_stops_every_format(form, nothing_shows, folder):
    for setting in (f"data.data_path={URL}", f"logging.wandb_project={TOKEN}", f"model.recompute_modules=mlp,{TOKEN}"):
        field = setting.partition("=")[0]
        said = nothing_shows("llava.finetune", setting, "--dry-run", "--format", form)
        assert f"{field}: holds a" in said and "environment variable" in said
    assert list(folder.iterdir()) == []


IN_SHELL = "export DB_PASSWORD=hunter2secret"
TEXT_FIELDS = [
    *("slurm executor.setup", "slurm executor.srun", "slurm executor.sbatch.licenses", "slurm executor.comment"),
    *("slurm executor.modules", "slurm executor.container_image", "slurm executor.python", "slurm executor.constraint"),
    *("docker executor.mounts", "docker executor.python", "docker executor.ulimits", "docker executor.docker_host"),
    *("local executor.env.ARGUMENTS", "local executor.grace_seconds"),
]
PLACES = [
    *(["llava.finetune", "--executor", *f"{place}={IN_SHELL}".split(" ", 1), "--dry-run"] for place in TEXT_FIELDS),
    ["executors", "slurm", f"executor.setup={IN_SHELL}"],
    ["llava.finetune", "--executor", "slurm", "executor.setup=[true,DB_PASSWORD=hunter2secret psql]"],
    ["llava.finetune", "--executor", "slurm", "executor.srun=[--export,ALL,A_KEY=hunter2secret]"],
    ["llava.finetune", "--executor", "slurm", "executor.srun=--export=ALL,A_KEY=hunter2secret", "--detach"],
    ["llava.finetune", f"data.data_path={IN_SHELL}", "--dry-run"],
    ["llava.finetune", f"logging.wandb_project={IN_SHELL}"],
    ["llava.finetune", "--dry-run", "--name", "A_KEY=hunter2secret"],
    ["llava.finetune", "--dry-run", "--runs-dir", "A_KEY=hunter2secret"],
    ["llava.finetune", f"optim.lr={TOKEN}"],
    ["llava.finetune", f"trainer.seed={TOKEN}"],
    ["llava.finetune", f"data.conv_template={TOKEN}"],
    ["llava.finetune", f"model.vision.freeze={TOKEN}"],
    ["llava.finetune", f"optim={TOKEN}"],
    ["llava.finetune", f"data.tokenizer={TOKEN}", "--help"],
    ["llava.finetune", f"data.tokenizer={TOKEN}"],
    ["llava.finetune", f"data.tokenizer={TOKEN}", "--detach"],
    ["llava.finetune", f"size={TOKEN}"],
    ["llava.finetune", f"{TOKEN}=1"],
    ["llava.finetune", f"optim.{TOKEN}=1"],
    ["llava.finetune", TOKEN],
    ["llava.finetune", f"data.data_path={TOKEN}\n"],
    ["llava.finetune", f"data.data_path=-----BEGIN PRIVATE KEY-----\n{TOKEN}\n-----END PRIVATE KEY-----"],
    ["llava.finetune", f"--token={TOKEN}"],
    ["llava.finetune", "--token", TOKEN],
    ["llava.finetune", f"--logging.wandb_project={TOKEN}"],
    ["llava.finetune", "--dry-run", "--name", TOKEN],
    ["llava.finetune", "--dry-run", "--name", f"run {URL}"],
    ["llava.finetune", "--dry-run", "--runs-dir", f"runs-{TOKEN}"],
    ["llava.finetune", "--executor", TOKEN],
    ["llava.finetune", f"executor.env.HF_TOKEN={TOKEN}"],
    ["llava.finetune", f"executor.env.INNOCENT={TOKEN}"],
    ["llava.finetune", "--dry-run", f"executor.env.MY_PASSWORD={IN_ENVIRONMENT}"],
    ["executors", "local", f"executor.env.HF_TOKEN={TOKEN}"],
    ["llava.finetune", "--dry-run", "--gpu", TOKEN],
    ["llava.finetune", "--dry-run", "--format", TOKEN],
    ["llava.finetune", "--recipes", TOKEN],
    [TOKEN],
    [f"{TOKEN}.yaml"],
    [URL],
    [IN_ENVIRONMENT],
    ["llava.finetune", IN_ENVIRONMENT],
    ["llava.finetune", f"optim.lr={IN_ENVIRONMENT}"],
    ["llava.finetune", f"--logging.wandb_project={IN_ENVIRONMENT}"],
    ["llava.finetune", "--dry-run", f"data.data_path=/data/{IN_ENVIRONMENT}"],
    ["llava.finetune", "--dry-run", "--name", IN_ENVIRONMENT],
    ["diff", "llava.finetune", f"data.data_path={IN_ENVIRONMENT}"],
    ["diff", TOKEN, "llava.finetune"],
    ["diff", "llava.finetune", URL],
    ["diff", "llava.finetune", f"logging.wandb_project={TOKEN}"],
    ["diff", "llava.finetune", f"logging.wandb_project={TOKEN}", "--format", "json"],
    ["diff", "llava.finetune", "optim.lr=1", "--format", TOKEN],
    ["show", TOKEN],
    ["status", TOKEN],
    ["logs", "x", "--rank", TOKEN],
    ["resume", TOKEN],
    ["cancel", TOKEN],
    ["chat", TOKEN],
    ["evaluate", TOKEN, "--data", URL],
    ["import-nemo", f"{TOKEN}.yaml"],
    ["fit", TOKEN],
    ["fit", "llava.finetune", f"logging.wandb_project={TOKEN}"],
]


@pytest.mark.parametrize("arguments", PLACES, ids=range(len(PLACES)))
def test_on_the_command_line(arguments, nothing_shows, folder):
    nothing_shows(*arguments)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("in_field", "logging.wandb_entity=me"),
        ("in_list", "model.recompute_modules=none"),
        ("in_number", "optim.lr=1e-4"),
        ("in_name", "name=other"),
        ("in_environment", "logging.wandb_project=mine"),
    ],
)
def test_in_a_value_that_the_command_line_replaces(name, setting, form, nothing_shows, folder):
    (folder / "mine.py").write_text(USER_FILE)
    said = nothing_shows(name, setting, "--recipes", "mine.py", "--dry-run", "--format", form, code=0)
    assert setting.rpartition("=")[2].replace("1e-4", "0.0001") in said


@pytest.mark.parametrize("line", ["export DB_PASSWORD=hunter2secret", "setenv DB_PASSWORD hunter2secret"])
@pytest.mark.parametrize("command", [["llava.finetune", "--dry-run", "--executor"], ["executors"]])
def test_in_a_profile(line, command, nothing_shows, folder):
    (folder / "executors.toml").write_text(f'[mine]\nkind = "slurm"\nsetup = ["true", "{line}"]\n')
    said = nothing_shows(*command, "mine")
    assert "setup: holds a value of DB_PASSWORD, and it would be shown and written to files: set the variable" in said


@pytest.mark.parametrize("name", [*REFUSED, "in_message", "in_result"])
def test_in_a_python_file(name, nothing_shows, folder):
    (folder / "mine.py").write_text(USER_FILE)
    nothing_shows("list", "--recipes", "mine.py", code=0)
    for form in FORMATS:
        nothing_shows(name, "--recipes", "mine.py", "--dry-run", "--format", form)
    nothing_shows(name, "--recipes", "mine.py")
    nothing_shows("diff", "llava.finetune", name, "--recipes", "mine.py")
    # What a field holds and what a parameter is by default is part of the help.
    nothing_shows(name, "--recipes", "mine.py", "--help", code=2 if name in ("in_message", "in_result") else 0)


def test_in_a_file_that_is_no_python(nothing_shows, folder):
    (folder / "mine.py").write_text(f"token = {TOKEN}")
    nothing_shows("x", "--recipes", "mine.py")
    (folder / "mine.py").write_text(f"token = '{TOKEN}")
    nothing_shows("x", "--recipes", "mine.py")


@pytest.mark.parametrize(
    ("line", "planted"),
    [
        ("wandb_project: null", f"wandb_project: {TOKEN}"),
        ("wandb_project: null", f"wandb_project: {URL}"),
        ("wandb_project: null", f"wandb_project: [{TOKEN}]"),
        ("wandb_project: null", f"wandb_project: {{token: {TOKEN}}}"),
        ("wandb_project: null", f"wandb_project: null\n  {TOKEN}: 1"),
        ("wandb_project: null", f"wandb_project: null\n  wandb_project: {TOKEN}"),
        ("wandb_project: null", f"wandb_project: '{TOKEN}"),
        ("wandb_project: null", f"wandb_project: !{TOKEN} x"),
        ("wandb_project: null", f"wandb_project: *{TOKEN}"),
        ("lr: 0.001", f"lr: {TOKEN}"),
        ("class: LlavaDataConfig", f"class: {TOKEN}"),
        ("seed: 1234", f"seed: [1, {{a: {TOKEN}}}]"),
    ],
)
def test_in_a_saved_recipe(line, planted, nothing_shows, folder):
    text = recipe_to_yaml(llava.finetune("tiny"))
    assert text.count(line) == 1
    (folder / "saved.yaml").write_text(text.replace(line, planted))
    for form in FORMATS:
        nothing_shows("saved.yaml", "--dry-run", "--format", form)
    nothing_shows("saved.yaml", "--help")
    nothing_shows("diff", "llava.finetune", "saved.yaml")


@pytest.mark.parametrize(
    "setting",
    [
        f"api_key={TOKEN}",
        f"exp_manager.wandb_logger_kwargs.api_key={IN_ENVIRONMENT}",
        f"exp_manager.wandb_logger_kwargs.project={IN_ENVIRONMENT}",
        f"exp_manager.{TOKEN}=1",
        f"model.tokenizer.{TOKEN}={URL}",
        f"model.optim.lr={TOKEN}",
        f"model.num_layers={TOKEN}",
        f"model.data.data_path={URL}",
        f"model.data.data_path=/{'long/' * 14}{TOKEN}",
        f"model.data.conv_template={TOKEN}",
        f"trainer.precision={TOKEN}",
        f"name={TOKEN}",
    ],
)
def test_in_a_configuration_of_nemo(setting, nothing_shows):
    config = Path(__file__).parents[1] / "nemo" / "configs" / "pretrain.yaml"
    nothing_shows("import-nemo", config, setting, code=2 if setting.startswith("model.num_layers") else 0)


def test_processes_show_none_either(folder):
    """The command as a process: nothing in its output, whatever the error looks like."""
    for words in (["llava.finetune", f"data.data_path={URL}"], ["llava.finetune", "--dry-run", f"optim.lr={TOKEN}"]):
        done = subprocess.run(
            [sys.executable, "-m", "neva_recipes.cli.main", *words], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 2 and done.stdout == ""
        assert TOKEN not in done.stderr and "hunter2secret" not in done.stderr
