"""`nemo-run show`: what a run used, from its directory alone; its ranks are small scripts."""

import dataclasses
import json
import platform
import shutil
import socket
import sys
from importlib.metadata import version

import pytest

import executors
from neva_recipes import llava
from neva_recipes.cli.arguments import apply_overrides
from neva_recipes.cli.main import main
from neva_recipes.config import load_recipe, recipe_to_plain

# A rank that leaves two checkpoints, one of them not whole yet, and fails.
RANK = """
import json, pathlib, shutil, sys
run = pathlib.Path(sys.argv[-1])
for name in ("step-00000003", "step-00000010", ".step-00000011.new"):
    checkpoint = run / "checkpoints" / name
    checkpoint.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "recipe.yaml", checkpoint)
    record = {"step": 10, "consumed_samples": 1280, "metrics": {}}
    (checkpoint / "checkpoint.json").write_text(json.dumps(record))
sys.exit(5)
"""


@pytest.fixture
def show(capfd):
    """Return a function that runs the command and returns what it printed."""

    def call(*arguments, code=0):
        assert main(["show", *map(str, arguments)]) == code
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1) if code else err == ""
        return err if code else out

    return call


@pytest.fixture
def run(folder, monkeypatch):
    """A run that failed, and failed again with another learning rate and batch."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    recipe = llava.finetune("tiny")
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi."}]
    (folder / "chats.json").write_text(json.dumps([{"id": "1", "conversations": turns}]))
    recipe.data.data_path, recipe.data.tokenizer = "chats.json", "owner/name"
    apply_overrides(recipe, {"optim.lr": "0.25", "trainer.max_steps": "40"})
    environment = {"NCCL_DEBUG": "WARN now", "HF_TOKEN": "not to be seen", "DATABASE": "postgres://me:hidden-from@you"}
    executor = executors.LocalExecutor(grace_seconds=5.0, env=environment)
    job = executors.plan_job(recipe, executor, name="digits")
    job = dataclasses.replace(job, argv=(sys.executable, "-c", RANK))
    run = executors.start_job(job, detach=True)
    assert run.wait() == 5
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for overrides in ({"optim.lr": "0.5", "data.global_batch_size": "128"}, {"trainer.max_steps": "50"}):
        changed = load_recipe(run.path / "recipe.yaml")
        apply_overrides(changed, overrides)
        run.resume(changed, detach=True)
        assert run.wait() == 5
    return run


@pytest.mark.multiprocess
def test_what_a_run_used(run, show):
    printed = show("digits")
    assert max(len(line) for line in printed.splitlines() if "/" not in line) <= 80
    facts = dict(line.strip().split(": ", 1) for line in printed.partition("Plan")[0].splitlines() if ": " in line)
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["run"] == run.name and facts["state"] == "failed" and facts["exit code"] == "5"
    assert facts["reason"] == "rank 0 exited with code 5" and facts["attempts"] == "3"
    assert facts["checkpoint"] == str(run.path / "checkpoints" / "step-00000010")
    assert facts["Python"] == platform.python_version() and facts["host"] == socket.gethostname()
    assert facts["version"] == version("neva-recipes") and facts["executor"] == "local grace_seconds=5.0"
    assert facts["processes"] == "1 on 1 node"
    variables = printed.partition("  variables: ")[2].partition("\n\n")[0].split("\n")
    assert sorted(map(str.strip, variables)) == [
        "DATABASE (set, its value is not kept)",
        "HF_TOKEN (set, its value is not kept)",
        "NCCL_DEBUG='WARN now'",
        *(variable.strip() for variable in variables if variable.strip().startswith("OMP_NUM_THREADS=")),
        "PYTHONUNBUFFERED=1",
    ]
    assert "not to be seen" not in printed and "hidden-from" not in printed

    # The plan is that of the recipe as it is: 128 rows, 32 at a time.
    assert "  microbatches a step                      4\n" in printed
    first, second = printed.partition("Changed when it was resumed")[2].split("Changed when it was resumed")
    assert "recipe before: recipe.1.yaml)\n  data\n    global_batch_size 64 -> 128\n" in first
    assert "  optim\n    lr                0.25 -> 0.5\n" in first and "max_steps" not in first
    assert "recipe before: recipe.2.yaml)\n  trainer\n    max_steps 40 -> 50\n\n" in second

    # The source of each value: that of the first start and of the resumes.
    assert "*   lr: 0.5 " in printed and "command line, was 0.25\n" in printed
    assert "*   max_steps: 50 " in printed and "command line, was 40\n" in printed
    lines = (run.path / "recipe.yaml").read_text().splitlines()
    number = lines.index("  min_lr: 0.0") + 1
    assert f"recipe.yaml:{number}\n" in printed.partition("    min_lr: 0.0 ")[2]

    # What was typed as it stood already, as in a rerun with all of its words, is not told as a change.
    record = run.record()
    record["command_line"] |= {"optim.min_lr": 0, "data.data_path": str(run.path.parents[1] / "chats.json")}
    (run.path / "job.json").write_text(json.dumps(record))
    typed = " ".join(show("digits").split())
    assert "* min_lr: 0.0 command line, unchanged" in typed and "chats.json command line, unchanged" in typed
    assert "command line, was 0.25" in typed


@pytest.mark.multiprocess
def test_json_and_what_is_not_there(run, show):
    document = json.loads(show(run.path, "--format", "json"))
    assert document["recipe"] == recipe_to_plain(load_recipe(run.path / "recipe.yaml"))
    assert document["plan"] == json.loads((run.path / "plan.json").read_text())
    assert document["job"] == json.loads((run.path / "job.json").read_text())
    assert document["job"]["command_line"] == {
        "optim.lr": 0.25,
        "trainer.max_steps": 40,
        "data.global_batch_size": 64,
    }
    assert [resume["before"] for resume in document["resumes"]] == ["recipe.1.yaml", "recipe.2.yaml"]
    assert document["resumes"][1]["changes"] == [{"path": "trainer.max_steps", "old": 40, "new": 50}]
    assert (document["state"], document["attempt"], document["step"]) == ("failed", 3, 10)
    assert "not to be seen" not in str(document) and "hidden-from" not in str(document)

    # A run without a plan, a checkpoint and a resume, of a version that knew less.
    for path in ("plan.json", "recipe.1.yaml", "recipe.2.yaml"):
        (run.path / path).unlink()
    shutil.rmtree(run.path / "checkpoints")
    record = run.record()
    for name in ("command_line", "code", "python", "hostname"):
        del record[name]
    record["env"]["PROXY"] = "http://me:hidden-from@proxy"
    record["executor"]["env"]["PEM"] = "-----BEGIN PRIVATE KEY-----\nhidden-from\n-----END PRIVATE KEY-----\n"
    (run.path / "job.json").write_text(json.dumps(record))
    printed = show(run.name)
    assert "Plan, as it was made for this recipe\n  none was kept\n" in printed
    assert "  PROXY=http://me:***@proxy\n" in printed
    document = json.loads(show(run.name, "--format", "json"))
    assert document["plan"] is None and "hidden-from" not in printed + str(document)
    assert "checkpoint:" not in printed and "Changed" not in printed and "command line," not in printed
    (run.path / "plan.json").write_text('{"schema": 99}')
    assert "plan.json: cannot be read as the plan of a run: schema 99" in show(run.name, code=2)


def test_unknown_run(folder, show):
    assert show("digits", code=2) == "error: no run 'digits' in runs\n"
    assert "required: RUN" in show(code=2)
