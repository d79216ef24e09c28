"""The real worker on two nodes: what it learns is what it learns on one machine, undisturbed or stopped on the way."""

import shlex
import signal
import subprocess

import pytest

import executors
from tests.end_to_end.world import nemo_run, start_nemo_run
from tests.slurm.clusters import PATIENCE
from tests.slurm.holds import Holds, hold, is_asked_to_stop, job_id, send
from tests.training._results import losses, tensors
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

STEPS = 12


def test_stopped_on_the_way_it_ends_with_the_weights_of_a_local_run(cluster, world, tmp_path):
    words = world.tiny(
        trainer__max_steps=STEPS, parallel__tensor_model_parallel_size=2, data__num_workers=1, data__micro_batch_size=1
    )
    words_here = [*words, "trainer.devices=4", "--name", "local"]
    nemo_run("llava.finetune", *words_here, cwd=world.folder, patience=PATIENCE)
    local = executors.find_run("local", world.folder / "runs")

    nodes = ["trainer.devices=2", "trainer.num_nodes=2", "--executor", "slurm", "executor.cpus_per_task=1"]
    name = 'it\'s a "cluster" $(touch canary)'
    holds = Holds(tmp_path / "holds", {1: 2, 2: 6})
    nemo_run("llava.finetune", *words, *nodes, *holds.words(), "--name", name, "--detach", cwd=world.folder)
    run = executors.find_run(name, world.folder / "runs")
    follower = start_nemo_run("logs", "-f", name, cwd=world.folder)
    ranks = hold(run, 1, 2)
    assert run.status().state == "running", run.status()
    subprocess.run(["scancel", "--signal=USR2", job_id(run)], check=True)
    wait_for(lambda: all(map(is_asked_to_stop, ranks)))
    send(signal.SIGCONT, ranks)

    # The next start is stopped for good, and nobody requeues it.
    ranks = hold(run, 2, 6)
    cancel = start_nemo_run("cancel", name, "--save", cwd=world.folder)
    wait_for(lambda: all(map(is_asked_to_stop, ranks)))
    send(signal.SIGCONT, ranks)
    out, err = cancel.communicate(timeout=PATIENCE)
    assert (cancel.returncode, err) == (0, "")
    stopped = int(run.newest_checkpoint().name[-8:])
    assert stopped >= 6
    assert out == (
        f"{run.name} cancelled: stopped on request; nemo-run resume {shlex.quote(run.name)} goes on from step {stopped}"
        ", the last that it has trained\n"
    )
    status = run.status()
    assert (status.state, status.exit_code, status.attempt) == ("cancelled", 75, 1)
    follower.communicate(timeout=PATIENCE)
    assert follower.returncode == 0
    nemo_run("resume", name, "--detach", cwd=world.folder)
    follower = start_nemo_run("logs", "-f", name, cwd=world.folder)
    assert run.wait() == 0, run.status()
    out, err = follower.communicate(timeout=PATIENCE)
    assert follower.returncode == 0
    assert all(" is queued" in line for line in err.splitlines()), err  # it may have begun before the ranks
    assert "[0] resuming from " in out
    assert f"step {STEPS}/{STEPS}  loss " in out

    assert losses(run.path)[-1] == pytest.approx(losses(local.path)[-1], abs=1e-5)
    expected, found = (tensors(directory.newest_checkpoint()) for directory in (local, run))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.equal(found[name]), name
    assert not list(world.folder.rglob("canary"))
