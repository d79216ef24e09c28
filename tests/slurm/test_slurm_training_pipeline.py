"""llava.pipeline and a sweep on two nodes by the real command: real training, real tools."""

import subprocess

import pytest

from executors import find_run
from executors.pipelines.directory import stage_statuses
from executors.slurm.cluster import job_standing
from neva_recipes.run_directory.state import read_state
from tests.end_to_end.world import nemo_run
from tests.pipelines.training import (
    PATIENCE,
    STAGES,
    Kept,
    attempts,
    check_results,
    local_pipeline,
    local_sweep,
    results,
    swept,
    write_inputs,
)
from tests.waiting import wait_for

__all__ = ["local_pipeline", "local_sweep"]

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

NODES = ["--executor", "slurm", "executor.cpus_per_task=1", "trainer.num_nodes=2", "trainer.devices=1"]


def dependencies():
    """Return what each job in the queue waits for."""
    output = subprocess.run(["squeue", "--noheader", "--format=%i %E"], capture_output=True, text=True, check=True)
    return dict(line.split() for line in output.stdout.splitlines())


@pytest.fixture
def taken(cluster):
    """A job that has all nodes; what is submitted after it waits until it is cancelled."""
    words = ["sbatch", "--parsable", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap", "sleep 3600"]
    job = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    wait_for(lambda: job_standing(job).state == "RUNNING")
    return job


def test_on_two_nodes_it_makes_what_it_makes_on_one_machine(local_pipeline, taken):
    world, local, _ = local_pipeline
    images = world.images.with_name("pictures of stage 2")
    away = images.with_name("away")
    images.symlink_to(world.images)
    words = [*write_inputs(world), f"finetune.data.data_path={world.data.name}", f"finetune.data.image_folder={images}"]
    nemo_run("llava.pipeline", *words, *NODES, "--name", "nodes", "--detach", cwd=world.folder, patience=PATIENCE)
    run = find_run("nodes", world.folder / "runs")
    numbers = [read_state(run.path / "stages" / name).supervisor["slurm_job_id"] for name in STAGES]
    waits = dependencies()  # nothing has begun
    assert [waits[number] for number in numbers[1:]] == [f"afterok:{number}(unfulfilled)" for number in numbers[:-1]]
    images.rename(away)
    subprocess.run(["scancel", taken], check=True)
    assert run.wait() == 2, run.status()
    assert run.status().reason.startswith("finetune failed: ")
    assert run.status().reason.endswith("; not run: export, evaluate")
    assert [stage.state for stage in stage_statuses(run.path)] == ["succeeded", "failed", "not run", "not run"]

    first = Kept(run, "pretrain")
    away.rename(images)
    nemo_run("resume", "nodes", cwd=world.folder, patience=PATIENCE)
    first.check()
    assert {name: attempts(run)[name] for name in ("pretrain", "finetune")} == {"pretrain": 1, "finetune": 2}
    check_results(run, world)
    weights, *rest = results(run)
    expected, *expected_rest = results(local)
    assert rest == expected_rest
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.equal(weights[name]), name


def test_a_sweep_on_the_cluster_ends_as_on_one_machine(cluster, local_sweep):
    world, rows = local_sweep
    assert swept(world, "nodes", "--executor", "slurm", "executor.cpus_per_task=1") == rows
    run = find_run("nodes", world.folder / "runs")
    numbers = [read_state(run.path / "stages" / number).supervisor["slurm_job_id"] for number in "123"]
    # One array, and a job for the point that was mended.
    array = numbers[0].partition("_")[0]
    assert (numbers[0], numbers[2]) == (f"{array}_0", f"{array}_2")
    assert numbers[1].isdigit() and int(numbers[1]) > int(array)
