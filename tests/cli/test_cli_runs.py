"""Looking after runs through the command, with ranks that are small scripts instead of the worker."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import executors
from neva_recipes import llava
from neva_recipes.config import RunError, build, load_recipe

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
        talks = [
            [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": f"Hi, {number}."}] for number in range(64)
        ]
        Path("chats.json").write_text(json.dumps([{"image": "a.png", "conversations": turns} for turns in talks]))
        Path("a.png").write_bytes(b"\x89PNG")
        recipe.data.data_path, recipe.data.tokenizer = "chats.json", "owner/name"
        recipe.parallel.tensor_model_parallel_size = 2
        job = executors.plan_job(recipe, executors.LocalExecutor(grace_seconds=5.0), name=name)
        job = dataclasses.replace(job, argv=(sys.executable, "-c", RANK))
        return executors.start_job(job, detach=True)

    yield call
    for run in executors.list_runs():
        with contextlib.suppress(RunError):  # it has ended
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
    assert table[0].split() == ["RUN", "STATE", "STEP", "LOSS", "STARTED", "TIME"]
    assert re.fullmatch(
        rf"{re.escape(run.name)}  running +- +- +[A-Z][a-z]{{2}} \d\d \d\d:\d\d +\d:\d\d:\d\d", table[1]
    )
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
    for words in ([], ["--save"]):
        assert "has already ended: failed" in nemo_run("cancel", run.name, *words, check=2).stderr

    # A resumed run takes changed fields along, and its exit code is the command's.
    assert "optim.lrr: no such field" in nemo_run("resume", run.name, "optim.lrr=1", check=2).stderr
    assert "--deatch: no such flag" in nemo_run("resume", run.name, "--deatch", check=2).stderr
    assert "  optim.lr=0.001\n" in nemo_run("resume", run.name, "--help", check=0).stdout
    wish(run, 9)
    failed = nemo_run("resume", run.name, "optim.lr=0.0078125", check=9)
    assert "rank 0 says héllo" in failed.stdout
    warning, error = failed.stderr.splitlines()
    assert warning.startswith("warning: parallel.tensor_model_parallel_size=2, parallel.sequence_parallel=false: ")
    assert error.startswith(f"error: run {run.name} failed: ")
    assert f"warnings:  {warning.removeprefix('warning: ')}\n" in nemo_run("status", run.name, check=0).stdout
    assert build(load_recipe(run.path / "recipe.yaml")).optim.lr == 0.0078125
    wish(run, 0)
    finished = nemo_run("resume", run.name, "--quiet", check=0)
    assert finished.stderr == f"{run.name} succeeded: {run.path}\n"


@pytest.mark.multiprocess
def test_cancelling_and_leaving(nemo_run, start):
    run = start()
    # Ctrl-C while following a log ends the following, not the run.
    arguments = [sys.executable, "-m", "neva_recipes.cli.main", "logs", "-f", run.name]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert "says" in follower.stdout.readline()
        os.kill(follower.pid, signal.SIGINT)
        assert follower.wait(timeout=120) == 130
        assert follower.stderr.read() == ""
    refused = nemo_run("cancel", "--save", run.name, check=2).stderr
    assert refused == f"error: run {run.name} trains no recipe and has nothing to save: cancel it without --save\n"
    assert "not allowed with" in nemo_run("cancel", "--save", "--force", run.name, check=2).stderr
    assert run.status().state == "running"
    assert nemo_run("cancel", run.name, check=0).stdout == (
        f"{run.name} cancelled; it has saved no checkpoint yet, and nemo-run resume {run.name} begins anew\n"
    )
    assert "exit code: 130\n" in nemo_run("status", run.name, check=0).stdout
    resumed = nemo_run("resume", run.name, "--detach", check=0).stdout
    assert f"nemo-run logs -f {run.name} follows it" in resumed
    wish(run, 0)
    assert executors.find_run(run.name).wait() == 0


@pytest.mark.multiprocess
def test_several_runs(nemo_run, start):
    first, second, third = start("first"), start("second"), start("third")
    watching = subprocess.Popen(
        [sys.executable, "-m", "neva_recipes.cli.main", "status", "--watch"], stdout=subprocess.PIPE, text=True
    )
    with watching:
        seen = [watching.stdout.readline().split() for _ in range(3)]
        assert [words[1:3] for words in seen] == [[run.name, "running"] for run in (first, second, third)]
        unknown = nemo_run("cancel", "first", "secnd", check=2).stderr
        assert "no run 'secnd'" in unknown and first.status().state == "running"
        wish(third, 3)
        third.wait()
        refused = nemo_run("cancel", "first", third.name, "second", "first", "--force", check=2)
        anew = "cancelled; it has saved no checkpoint yet, and nemo-run resume"
        assert refused.stdout.splitlines() == [f"{run.name} {anew} {run.name} begins anew" for run in (first, second)]
        assert refused.stderr == f"error: run {third.name} has already ended: failed\n"
        rest = [line.split()[1:3] for line in watching.stdout]
        assert sorted(rest) == [[first.name, "cancelled"], [second.name, "cancelled"], [third.name, "failed"]]
    assert nemo_run("status", check=0).stdout.splitlines()[-1] == "3 runs: 2 cancelled, 1 failed"

    # Both ranks have said the same but for their number.
    log = first.path / "logs" / "joined.log"
    with log.open("a") as file:
        file.write("[1] the end\n[0] the end\n")
    assert nemo_run("logs", "first", "--tail", "2", check=0).stdout == "[0-1] the end\n"
    assert nemo_run("logs", "first", "--since", "1h", check=0).stdout == nemo_run("logs", "first", check=0).stdout
    assert nemo_run("logs", "first", "--since", "2999-01-01", check=0).stdout == ""
    for words in (["--since", "soon"], ["--since", "99999999d"], ["--tail", "-1"], ["--tail", "many"], ["--since", ""]):
        wrong = nemo_run("logs", "first", *words, check=2).stderr
        assert wrong.count("\n") == 1 and words[1] in wrong


@pytest.mark.multiprocess
def test_rerun(nemo_run, start):
    old = start("my dïgits")
    wish(old, 3)
    assert old.wait() == 3
    help_text = nemo_run("rerun", "my dïgits", "optim.lr=0.25", "--help", check=0).stdout
    assert "  optim.lr=0.25\n" in help_text
    assert nemo_run("rerun", check=2).stderr == "error: nemo-run rerun needs a RUN; nemo-run status lists them\n"
    elsewhere = nemo_run("rerun", old.name, "executor=slurm", check=2).stderr
    assert elsewhere.startswith("error: executor=slurm: a run keeps its executor: nemo-run '/")
    assert elsewhere.endswith("/recipe.yaml' --executor slurm starts its recipe there\n")
    # What a rerun starts is the worker; this recipe's tokenizer is not there for it.
    nemo_run("rerun", old.name, "optim.lr=0.125", "--name", "again", "--detach")
    new = executors.find_run("again")
    recipes = [build(load_recipe(run.path / "recipe.yaml")) for run in (old, new)]
    assert (recipes[1].optim.lr, recipes[1].name) == (0.125, recipes[0].name)
    assert new.path.parent == old.path.parent and new.record()["executor"]["grace_seconds"] == 5.0
    assert old.status().state == "failed" and old.status().attempt == 1


def test_gc(nemo_run, folder):
    assert nemo_run("gc", check=0).stdout == "nothing to remove in runs\n"
    left = Path("runs") / ".new-0123456789abcdef"
    left.mkdir(parents=True)
    (left / "recipe.yaml").write_bytes(b"x" * 20000)
    # What it takes is up to the file system.
    used = subprocess.run(["du", "--block-size=1", left / "recipe.yaml"], capture_output=True, text=True, check=True)
    size = f"{int(used.stdout.split()[0]) / 1024:.1f} KiB"
    assert nemo_run("gc", check=0).stdout == "nothing to remove in runs\n"
    os.utime(left, (0, 0))
    listed = nemo_run("gc", check=0).stdout.splitlines()
    assert listed[0].strip() == f"{size}  launch cut short  .new-0123456789abcdef"
    assert listed[1] == f"{size} can be freed: add --yes to remove this"
    assert left.exists()
    assert nemo_run("gc", "--yes", check=0).stdout.splitlines()[1] == f"{size} freed"
    assert not left.exists()
    assert "30: expected a time such as" in nemo_run("gc", "--older-than", "30", check=2).stderr
