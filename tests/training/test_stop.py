"""Runs that are asked to stop save what they have, and end with the weights of an undisturbed run."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch

from neva_recipes.config import Recipe
from neva_recipes.run_directory.attempt import keep_before
from tests.training._results import losses, tensors

MakeRecipe = Callable[..., fdl.Config[Recipe]]

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

STEPS = 14
STOPPED = 75
PATIENCE = 300
COMMON = {"trainer__max_steps": STEPS, "trainer__devices": 2, "data__num_workers": 2, "trainer__ema_decay": 0.9}
BITS = 1 << (signal.SIGUSR2 - 1)


@pytest.fixture(scope="module")
def recipes(digits: Path, make_recipe: MakeRecipe) -> dict[str, fdl.Config[Recipe]]:
    """Two runs on two ranks: two replicas that validate and keep the worst checkpoints, and two stages."""
    replicas = {
        "data__validation_data_path": digits / "held_out.json",
        "trainer__val_check_interval": 3,
        "trainer__limit_val_batches": 4,
        "checkpoint__every_n_train_steps": 4,
        "checkpoint__monitor": "val_loss",
        # The loss falls, so the earliest are to be kept, unless one of them does not know its validation.
        "checkpoint__mode": "max",
        "checkpoint__save_top_k": 2,
        "model__language__hidden_dropout": 0.1,
    }
    stages = {"parallel__pipeline_model_parallel_size": 2, "checkpoint__save_top_k": 0, "checkpoint__save_last": "true"}
    return {"replicas": make_recipe(**COMMON, **replicas), "stages": make_recipe(**COMMON, **stages)}


@pytest.fixture(scope="module")
def undisturbed(recipes: dict[str, fdl.Config[Recipe]], train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both runs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(recipes["replicas"], folder / "replicas", stages=recipes["stages"])
    return folder


def masks(process: Path, name: str) -> int:
    return int(re.search(rf"^{name}:\s*(\w+)", (process / "status").read_text(), re.MULTILINE)[1], 16)


def wait_for_pause(worker: Any, rank: int = 0) -> None:
    """Wait until a rank has stopped itself at its moment."""
    process = worker.processes[rank]
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None and time.monotonic() < deadline, worker.log()
        time.sleep(0.01)


def go_on(worker: Any, rank: int = 0) -> None:
    os.kill(worker.processes[rank].pid, signal.SIGCONT)


def ends(worker: Any, code: int = STOPPED) -> int:
    """Check how a run has ended, and return the step it stopped at."""
    assert [process.wait(PATIENCE) for process in worker.processes] == [code] * len(worker.processes), worker.log()
    assert not (worker.run_directory / "failure.json").exists()
    assert "Traceback" not in worker.log() and "requeu" not in worker.log()
    lines = re.findall(rf"^stopped at step (\d+) of {STEPS} on request; resumes from (.*)$", worker.log(), re.MULTILINE)
    if code == STOPPED and lines[-1][0] != "0":
        assert (Path(lines[-1][1]) / "checkpoint.json").is_file()
        assert len(losses(worker.run_directory)) == int(lines[-1][0])
    assert int((worker.run_directory / "metrics" / "step.txt").read_text()) == (
        STEPS if code == 0 else int(lines[-1][0])
    )
    return int(lines[-1][0])


def printed(step: int) -> str:
    """The pattern of what rank 0 prints at the end of a step."""
    return rf"^step {step}/{STEPS}  loss"


def same_result(ours: Path, theirs: Path) -> None:
    names = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (ours, theirs)]
    assert names[0] == names[1]
    for column in ("reduced_train_loss", "lr", "grad_norm"):
        assert losses(ours, column) == losses(theirs, column)
    last = f"checkpoints/step-{STEPS:08d}"
    mine, other = tensors(ours / last), tensors(theirs / last)
    assert mine.keys() == other.keys()
    assert any(name.startswith("average.") for name in mine) and any("exp_avg" in name for name in mine)
    for name in mine:
        assert torch.equal(mine[name], other[name]), name


def test_stops_at_any_moment_leave_the_same_run(
    recipes: dict[str, fdl.Config[Recipe]],
    start_worker: Any,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Under Slurm Lightning would by itself requeue the job: all it has to go by is there.
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/requeued\n")
    scontrol.chmod(0o755)
    slurm = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "2", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")

    recipe, run = recipes["replicas"], tmp_path / "run"

    # While the libraries are loaded.
    worker = start_worker(recipe, run, pause=(1, "^import torch$"))
    wait_for_pause(worker, 1)
    worker.processes[1].send_signal(signal.SIGUSR2)
    go_on(worker, 1)
    assert ends(worker) == 0
    assert not list((run / "checkpoints").glob("*"))

    # During a step, to one of the ranks and all it has started, as Slurm sends it.
    worker = start_worker(recipe, run, pause=(0, printed(1)))
    wait_for_pause(worker)
    started = [path for path in Path("/proc").glob("[0-9]*") if is_member(path, worker.processes[1].pid)]
    assert len(started) >= 3  # the rank and its two data loaders
    for path in started:
        assert (masks(path, "SigBlk") | masks(path, "SigIgn")) & BITS, path
    os.killpg(worker.processes[1].pid, signal.SIGUSR2)
    go_on(worker)
    assert 1 <= ends(worker) <= 2

    # During a validation, which is brought to its end; more than once, to all.
    worker = start_worker(recipe, run, pause=(0, printed(3), "^fork$"))  # its data loaders
    wait_for_pause(worker)
    for rank in (0, 1, 0, 1):
        worker.processes[rank].send_signal(signal.SIGUSR2)
    go_on(worker)
    assert ends(worker) == 3
    assert len(losses(run, "val_loss")) == 1

    # During a save that was due: it is the one.
    saving = f"{run}/checkpoints/.incomplete-step-00000004"
    worker = start_worker(recipe, run, pause=(0, f"^open {re.escape(saving)}/"))
    wait_for_pause(worker)
    worker.processes[0].send_signal(signal.SIGUSR2)
    go_on(worker)
    assert ends(worker) == 4
    assert not json.loads((run / "checkpoints" / "step-00000004" / "checkpoint.json").read_text())["on_request"]

    # After the last step.
    worker = start_worker(recipe, run, pause=(0, printed(STEPS)))
    wait_for_pause(worker)
    worker.processes[1].send_signal(signal.SIGUSR2)
    go_on(worker)
    ends(worker, 0)

    same_result(run, undisturbed / "replicas")
    assert losses(run, "val_loss") == losses(undisturbed / "replicas", "val_loss")
    assert not (tmp_path / "requeued").exists()


def test_ranks_of_a_run_that_is_done_do_not_run_into_each_other(
    recipes: dict[str, fdl.Config[Recipe]], start_worker: Any, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed / "stages", run)
    # What a resume keeps for a failure, beside the rest of an earlier one that takes a while to remove.
    keep_before(run)
    (run / ".before.new").mkdir()
    for number in range(30_000):
        (run / ".before.new" / str(number)).touch()
    worker = start_worker(recipes["stages"], run)
    assert [process.wait(PATIENCE) for process in worker.processes] == [0, 0], worker.log()
    assert "nothing is left to do" in worker.log() and not list(run.glob(".before*"))


def is_member(process: Path, group: int) -> bool:
    try:
        return os.getpgid(int(process.name)) == group
    except ProcessLookupError:
        return False


def test_one_stop_between_pipeline_stages(
    recipes: dict[str, fdl.Config[Recipe]], start_worker: Any, undisturbed: Path, tmp_path: Path
) -> None:
    wanted = 9
    worker = start_worker(recipes["stages"], tmp_path, pause=(0, printed(wanted)))
    wait_for_pause(worker)
    worker.processes[1].send_signal(signal.SIGUSR2)
    go_on(worker)
    step = ends(worker)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert json.loads((checkpoint / "checkpoint.json").read_text())["step"] == step >= wanted

    worker = start_worker(recipes["stages"], tmp_path)
    ends(worker, 0)
    same_result(tmp_path, undisturbed / "stages")
