"""Ctrl-C at a run in the foreground: it saves what no checkpoint holds, and a second Ctrl-C waits for nothing."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

import executors
from neva_recipes.run_directory.state import read_state
from tests.end_to_end.world import PATIENCE, start_nemo_run
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

FIRST = (
    r"run {name} saves (\d+) steps? that no checkpoint holds yet, and stops; press Ctrl-C again to kill it at once, "
)
FIRST += "without them\n"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "runs"


def start(world, place, *words):
    """Start the command in a session of its own, so that it alone gets the Ctrl-C of a terminal."""
    return start_nemo_run(*words, "--runs-dir", place, cwd=world.folder, start_new_session=True)


def interrupt(command):
    os.killpg(command.pid, signal.SIGINT)


def end_of(command):
    """Return the exit code of a command, and what it has printed on standard error since it was last read."""
    _, err = command.communicate(timeout=PATIENCE)
    assert "Traceback" not in err, err
    return command.returncode, err


def only_run(place):
    wait_for(lambda: place.is_dir() and executors.list_runs(place))
    return executors.list_runs(place)[0]


def trained(run):
    return run.status().step or 0


def ranks_of(run):
    """Return the processes of the ranks: the children of the supervisor."""
    supervisor = read_state(run.path).supervisor["pid"]
    return [int(pid) for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()]


def test_what_has_been_trained_is_saved_unless_it_is_interrupted_again(world, place):
    words = ["llava.finetune", *world.tiny(trainer__max_steps=100_000), "--name", "run"]
    command = start(world, place, *words)
    run = only_run(place)
    wait_for(lambda: trained(run) >= 3 or run.has_ended())
    ranks = ranks_of(run)
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)  # the save hangs
    steps = trained(run)
    interrupt(command)
    told = command.stderr.readline()
    while "Ctrl-C" not in told:
        told = command.stderr.readline()
    assert int(re.fullmatch(FIRST.format(name=run.name), told)[1]) == steps
    interrupt(command)
    code, err = end_of(command)
    assert (code, run.status().state, run.status().exit_code) == (130, "cancelled", 130)
    assert f"run resume {run.path} begins anew" in err.replace("nemo-", "")
    assert run.newest_checkpoint() is None

    # Nothing has been trained in this attempt: nothing is waited for, and no steps of the first one are spoken of.
    command = start(world, place, "resume", "run")
    assert command.stdout.readline().startswith("--- attempt 2")
    interrupt(command)
    code, err = end_of(command)
    assert code == 130 and f"cancelling run {run.name}; press Ctrl-C again" in err

    command = start(world, place, "resume", "run", "--quiet")
    while not (line := command.stdout.readline()).startswith("step 3/"):
        assert line, command.stderr.read()
    interrupt(command)
    code, err = end_of(command)
    assert (code, run.status().state, run.status().reason) == (75, "cancelled", "stopped on request")
    asked, ended = err.splitlines()
    assert re.fullmatch(FIRST.format(name=run.name), f"{asked}\n")
    step = trained(run)
    assert json.loads((run.newest_checkpoint() / "checkpoint.json").read_text())["step"] == step
    assert ended == (
        f"{run.name} cancelled: stopped on request; nemo-run resume {run.path} goes on from step {step}, "
        "the last that it has trained"
    )


def test_the_points_of_a_sweep_are_saved(world, place):
    words = world.tiny(trainer__max_steps=100_000, optim__lr="1e-3,2e-3")
    command = start(world, place, "llava.finetune", *words, "--sweep", "--parallel", 2, "--name", "sweep", "--quiet")
    sweep = only_run(place)
    points = [executors.Run(sweep.path / "stages" / name) for name in ("1", "2")]
    wait_for(lambda: all(map(trained, points)) or sweep.has_ended())
    interrupt(command)
    code, err = end_of(command)
    assert (code, sweep.status().exit_code) == (75, 75)
    assert re.search(FIRST.format(name=sweep.name), err)
    for point in points:
        assert point.status().exit_code == 75 and point.newest_checkpoint() is not None
