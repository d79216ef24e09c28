"""A run of two processes on the real worker: watched, killed, resumed, cancelled, changed and finished from outside."""

import json
import os
import signal
from pathlib import Path

import pytest

import executors
from neva_recipes.config import load_recipe
from neva_recipes.run_directory.state import read_state
from tests.end_to_end.world import PATIENCE, nemo_run, start_nemo_run
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

NAME = "long run"


def worker_pid(run, rank):
    """Return the process number of a rank: a child of the supervisor, found by its environment."""
    supervisor = str(read_state(run.path).supervisor["pid"])
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == supervisor and b"RANK=%d" % rank in environment:
            return int(entry.name)
    raise AssertionError(f"rank {rank} is not running")


def checkpoints(run):
    return sorted(path.name for path in (run.path / "checkpoints").glob("step-*"))


def logged(run):
    return (run.path / "logs" / "joined.log").read_text(encoding="utf-8")


def steps(run):
    return run.status().step or 0


def test_from_start_to_end(world, tmp_path):
    place = ["--runs-dir", tmp_path]
    words = world.tiny(
        trainer__devices=2,
        trainer__max_steps=100_000,
        checkpoint__every_n_train_steps=3,
    )
    started = nemo_run("llava.finetune", *words, "--name", NAME, "--detach", *place, cwd=world.folder)
    run = executors.find_run(NAME, tmp_path)
    assert started.stdout == f"{run.name} runs in {run.path}; nemo-run logs -f '{run.path}' follows it\n"
    try:
        _live(run, place, world.folder)
    finally:
        if run.status().exit_code is None:
            run.cancel(force=True)


def _live(run, place, cwd):
    # While it trains it is seen from other processes, and nobody else can start it.
    follower = start_nemo_run("logs", "-f", NAME, *place, cwd=cwd)
    wait_for(lambda: checkpoints(run) or run.has_ended())
    table = nemo_run("status", *place, cwd=cwd).stdout.splitlines()
    assert table[1].split()[2] == "running" and max(map(len, table)) <= 80
    # The ranks stand still, for they remove checkpoints while the command reads them.
    ranks = [worker_pid(run, rank) for rank in range(2)]
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)
    try:
        refused = nemo_run("resume", NAME, "trainer.max_steps=5", *place, cwd=cwd, code=2)
        record = run.newest_checkpoint() / "checkpoint.json"
        record.rename(record.with_name("removed"))
        meanwhile = nemo_run("resume", NAME, "trainer.max_steps=5", *place, cwd=cwd, code=2)
        record.with_name("removed").rename(record)
    finally:
        for rank in ranks:
            os.kill(rank, signal.SIGCONT)
    (error,) = refused.stderr.splitlines()  # and no word of what would change
    assert error.startswith("error: ") and "is in use: running on " in error
    assert meanwhile.stderr == f"{error}\n"
    assert load_recipe(run.path / "recipe.yaml").trainer.max_steps == 100_000

    # A rank dies: the reason is its death, not what the other one says of it.
    os.kill(worker_pid(run, 1), signal.SIGKILL)
    assert run.wait() == 128 + signal.SIGKILL
    assert run.status().reason == "rank 1 was killed by signal 9 (SIGKILL: out of memory?)"
    assert "exit code: 137\n" in nemo_run("status", NAME, *place, cwd=cwd).stdout
    out, err = follower.communicate(timeout=PATIENCE)
    assert (follower.returncode, err) == (0, "")
    assert f"[0] training {NAME} (llava.finetune): 100000 steps of 8 samples out of 25, on 2 processes (cpu)\n" in out
    assert "[0] step 1/100000  loss " in out

    # Resumed with another layout and learning rate, then cancelled.
    saved = checkpoints(run)[-1]
    before = steps(run)
    overrides = ["trainer.devices=1", "optim.lr=0.0005"]
    nemo_run("resume", NAME, *overrides, "--detach", *place, cwd=cwd)
    wait_for(lambda: (steps(run) > before + 1 and checkpoints(run)[-1] > saved) or run.has_ended())
    assert f"resuming from {run.path}/checkpoints/{saved} after {int(saved[-8:])} steps\n" in logged(run)
    told = nemo_run("cancel", NAME, *place, cwd=cwd).stdout
    assert (run.status().state, run.status().exit_code) == ("cancelled", 130)
    left, trained = int(checkpoints(run)[-1][-8:]), steps(run)
    from_where = f"step {left} of the {trained} that it has trained" if left < trained else f"step {left}, the last"
    assert told.startswith(f"{run.name} cancelled; nemo-run resume '{run.path}' goes on from {from_where}")
    assert "Traceback" not in logged(run).partition("--- attempt 2, ")[2]
    assert not (run.path / "failure.json").exists()
    assert load_recipe(run.path / "recipe.1.yaml").trainer.devices == 2

    # Resumed, and asked to save where the recipe saves nothing.
    nemo_run("resume", NAME, "checkpoint.every_n_train_steps=100000", "--detach", *place, cwd=cwd)
    wait_for(lambda: steps(run) > trained + 1 or run.has_ended())
    told = nemo_run("cancel", NAME, "--save", *place, cwd=cwd).stdout
    status, stopped = run.status(), int(checkpoints(run)[-1][-8:])
    assert (status.state, status.exit_code) == ("cancelled", 75) and stopped == status.step > trained
    command = f"nemo-run resume '{run.path}'"
    assert told == (
        f"{run.name} cancelled: stopped on request; {command} goes on from step {stopped}, the last that it has "
        "trained\n"
    )

    # Resumed with the number of steps that is left to do, in the foreground.
    newest = int(checkpoints(run)[-1][-8:])
    last = newest + 2
    done = nemo_run("resume", NAME, f"trainer.max_steps={last}", *place, cwd=cwd)
    assert f"after {newest} steps\n" in done.stdout and f"step {last}/{last}  loss " in done.stdout
    changed, schedule, ended, *_ = done.stderr.splitlines()
    assert changed == f"note: changed: trainer.max_steps={last} (it was 100000)"
    assert schedule.startswith("note: learning rate: ") and f"{last} steps instead of 100000" in schedule
    assert ended == f"{run.name} succeeded: {run.path}"
    assert checkpoints(run)[-1] == f"step-{last:08d}"
    assert not (run.path / "failure.json").exists()
    recipe = load_recipe(run.path / "recipe.yaml")
    assert (recipe.trainer.devices, recipe.optim.lr, recipe.trainer.max_steps) == (1, 0.0005, last)
    information = json.loads((run.path / "checkpoints" / checkpoints(run)[-1] / "checkpoint.json").read_text())
    assert information["consumed_samples"] == 8 * last and information["world_size"] == 1
