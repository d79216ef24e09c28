"""Looking after runs through the command, with ranks that are small scripts instead of the worker."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import executors
from neva_recipes import llava
from neva_recipes.config import build, load_recipe

# Prints its rank, waits for the other to have done so and for a file named wish, and exits with the number in it.
# The port is another one each time a run is started.
RANK = """
import os, pathlib, sys, time
run = pathlib.Path(sys.argv[-1])
print("rank", os.environ["RANK"], "says", "h\\u00e9llo", flush=True)
said = [run / f"said-{os.environ['MASTER_PORT']}-{rank}" for rank in range(2)]
said[int(os.environ["RANK"])].touch()
while not all(path.exists() for path in [*said, run / "wish"]):
    time.sleep(0.02)
sys.exit(int((run / "wish").read_text()))
"""


@pytest.fixture
def start(folder):
    """Return a function that starts a run of two ranks, detached; what still runs in the end is cancelled."""

    def call(name="digits"):
        recipe = llava.finetune("tiny")
        Path("chats.json").write_text(
            '[{"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hi."}]}]'
        )
        recipe.data.data_path, recipe.data.tokenizer = "chats.json", "owner/name"
        recipe.parallel.tensor_model_parallel_size = 2
        job = executors.plan_job(recipe, executors.LocalExecutor(grace_seconds=5.0), name=name)
        job = dataclasses.replace(job, argv=(sys.executable, "-c", RANK))
        return executors.start_job(job, detach=True)

    yield call
    for run in executors.list_runs():
        if run.status().exit_code is None:
            run.cancel()


def wish(run, code):
    (run.path / "wish.new").write_text(str(code))
    (run.path / "wish.new").rename(run.path / "wish")


def test_no_runs_yet(nemo_run):
    assert nemo_run("status", check=0).stdout == "no runs in runs\n"


@pytest.mark.multiprocess
def test_a_run_from_beginning_to_resumption(nemo_run, start):
    run = start("my dïgits")
    table = nemo_run("status", check=0).stdout.splitlines()
    assert table[0].split() == ["RUN", "STATE", "STEP", "STARTED", "TIME"]
    assert re.fullmatch(rf"{re.escape(run.name)}  running +- +[A-Z][a-z]{{2}} \d\d \d\d:\d\d +\d:\d\d:\d\d", table[1])
    assert table[2:] == ["1 run: 1 running"]

    described = nemo_run("status", "my dïgits", check=0).stdout
    assert f"run:       {run.name}\nstate:     running\n" in described
    assert f"directory: {run.path}\n" in described

    refused = nemo_run("resume", run.name, check=2)
    assert "in use" in refused.stderr and refused.stderr.count("\n") == 1

    wish(run, 7)
    followed = nemo_run("logs", "-f", run.name, check=0).stdout
    assert "rank 0 says héllo" in followed and "rank 1 says héllo" in followed
    assert nemo_run("logs", run.name, "--rank", "1", check=0).stdout == "rank 1 says héllo\n"
    no_rank = nemo_run("logs", run.name, "--rank", "2", check=2).stderr
    assert no_rank == f"error: run {run.name} has no rank 2: expected 0 to 1\n"
    assert "state:     failed\n" in nemo_run("status", run.name, check=0).stdout
    assert "has already ended: failed" in nemo_run("cancel", run.name, check=2).stderr

    # A resumed run takes changed fields along, and its exit code is the command's.
    assert "optim.lrr: no such field" in nemo_run("resume", run.name, "optim.lrr=1", check=2).stderr
    assert "--deatch: no such flag" in nemo_run("resume", run.name, "--deatch", check=2).stderr
    assert "  optim.lr=0.001\n" in nemo_run("resume", run.name, "--help", check=0).stdout
    wish(run, 9)
    failed = nemo_run("resume", run.name, "optim.lr=0.125", check=9)
    assert "rank 0 says héllo" in failed.stdout
    assert failed.stderr.startswith(f"error: run {run.name} failed: ") and failed.stderr.count("\n") == 1
    assert build(load_recipe(run.path / "recipe.yaml")).optim.lr == 0.125
    wish(run, 0)
    finished = nemo_run("resume", run.name, check=0)
    assert finished.stderr == f"{run.name} succeeded: {run.path}\n"


@pytest.mark.multiprocess
def test_cancelling_and_leaving(nemo_run, start):
    run = start()
    # Ctrl-C while following a log ends the following, not the run.
    arguments = [sys.executable, "-m", "neva_recipes.cli.main", "logs", "-f", run.name]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert "says" in follower.stdout.readline()
        time.sleep(0.2)
        os.kill(follower.pid, signal.SIGINT)
        assert follower.wait(timeout=30) == 130
        assert follower.stderr.read() == ""
    assert nemo_run("cancel", run.name, check=0).stdout == f"{run.name} cancelled\n"
    assert "exit code: 130\n" in nemo_run("status", run.name, check=0).stdout
    resumed = nemo_run("resume", run.name, "--detach", check=0).stdout
    assert f"nemo-run logs -f {run.name} follows it" in resumed
    wish(run, 0)
    assert executors.find_run(run.name).wait() == 0
