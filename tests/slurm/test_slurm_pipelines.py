"""Pipelines whose stages wait for each other by Slurm alone, on a real cluster."""

import json
import os
import shutil
import subprocess

import pytest

from executors import Pipeline, Stage, find_run, run_pipeline
from executors.pipelines.directory import stage_statuses
from executors.slurm.executor import SlurmExecutor
from neva_recipes.config import RunError
from neva_recipes.sweep import sweep
from tests.pipelines.recipes import make_recipe
from tests.pipelines.small_stages import four, runs_dir, starts
from tests.slurm.clusters import GPUS, nothing_starts, running_cluster
from tests.slurm.slurm_jobs import points
from tests.waiting import wait_for

__all__ = ["four", "runs_dir", "starts"]

# The packages of this checkout, but neva_model, for which small scripts stand.
PLACE = {"gpu_request": "none", "code_snapshot": False}


def states(run):
    return {stage.name: stage.state for stage in stage_statuses(run.path)}


def jobs_of(run):
    output = subprocess.run(["squeue", "--noheader", "--format=%o|%T"], capture_output=True, text=True, check=True)
    return [line for line in output.stdout.splitlines() if str(run.path) in line]


def test_a_failed_stage_stops_what_depends_on_it_and_resuming_runs_the_rest(cluster, four, runs_dir, starts):
    (runs_dir / "hold a").touch()
    (runs_dir / "fail b").touch()
    run = run_pipeline(four, SlurmExecutor(**PLACE), runs_dir, detach=True)
    # All is submitted before the first stage has ended, and no process of ours is left here.
    assert all(stage.run.supervisor()["slurm_job_id"] for stage in stage_statuses(run.path))
    (runs_dir / "hold a").unlink()
    assert run.wait() == 3
    assert states(run) == {"a": "succeeded", "b": "failed", "c": "succeeded", "d": "not run"}
    reason = run.status().reason
    assert reason.startswith("b failed: ") and reason.endswith("; not run: d")
    assert sorted(starts()) == ["a", "b", "c"]
    (runs_dir / "fail b").unlink()
    run.resume(detach=True)
    assert run.wait() == 0
    assert sorted(starts()[:3]) == ["a", "b", "c"] and starts()[3:] == ["b", "d"]
    assert states(run) == dict.fromkeys("abcd", "succeeded")


def test_a_stage_that_is_older_than_its_input_is_submitted_again(cluster, four, runs_dir, starts):
    run = run_pipeline(four, SlurmExecutor(**PLACE), runs_dir, detach=True)
    assert run.wait() == 0
    made = run.path / "stages" / "d" / "exported"
    made.mkdir()  # d, an export, takes what b has made
    b = find_run(f"{run.name}/b", runs_dir)
    b.resume(detach=True)
    assert b.wait() == 0
    assert [stage.older_than for stage in stage_statuses(run.path)] == [None, None, None, "b"]
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts()[4:] == ["b", "d"]
    assert [stage.older_than for stage in stage_statuses(run.path)] == [None] * 4
    assert not made.exists() and made.with_name("aside-exported").is_dir()


def test_asked_to_save_the_stage_under_way_does_and_nothing_follows_it(cluster, four, runs_dir, starts):
    (runs_dir / "hold a").touch()
    run = run_pipeline(four, SlurmExecutor(**PLACE), runs_dir, detach=True)
    waiting = stage_statuses(run.path)[1].run
    with pytest.raises(RunError, match=r"run four-[\d-]+/b is queued and has nothing to save: cancel it without"):
        waiting.cancel(save=True)
    wait_for(lambda: states(run)["a"] == "running")
    run.cancel(save=True)
    assert (run.status().state, run.status().exit_code) == ("cancelled", 75)
    assert run.status().reason == "a cancelled: stopped on request; not run: b, c, d"
    assert states(run) == {"a": "cancelled", **dict.fromkeys("bcd", "not run")}
    (runs_dir / "hold a").unlink()
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts() == ["a", "a", *starts()[2:4], "d"]


def test_what_slurm_has_forgotten_is_told_by_the_stages_before(cluster, runs_dir, tmp_path, starts, monkeypatch):
    (runs_dir / "stop a").touch()
    pipeline = Pipeline("p", Stage("a", make_recipe()) >> Stage("b", make_recipe()))
    # No rank fails, and yet b must not begin.
    run = run_pipeline(pipeline, SlurmExecutor(**PLACE, max_requeues=0), runs_dir, detach=True)
    wait_for(lambda: not jobs_of(run))
    # MinJobAge has passed, and the cluster has no accounting.
    programs = tmp_path / "programs"
    programs.mkdir()
    told = {
        "squeue": "slurm_load_jobs error: Invalid job id specified",
        "sacct": "Slurm accounting storage is disabled",
    }
    for name, words in told.items():
        (programs / name).write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
        (programs / name).chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        assert run.wait() == 1
        assert states(run) == {"a": "failed", "b": "not run"}
        reason = run.status().reason
        assert reason.startswith("a failed: ")
        assert reason.endswith("not requeued: executor.max_requeues=0; not run: b")
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts() == ["a", "a", "b"]


@pytest.mark.slow
def test_a_requeued_stage_is_waited_for_and_can_be_cancelled(cluster, four, runs_dir, starts):
    for name in ("stop b", "hold b", "hold c"):
        (runs_dir / name).touch()
    run = run_pipeline(four, SlurmExecutor(**PLACE), runs_dir, detach=True)
    wait_for(lambda: sorted(starts()) == ["a", "b", "c"])
    with nothing_starts():
        (runs_dir / "hold b").unlink()
        stopped = {"a": "succeeded", "b": "queued", "c": "running", "d": "queued"}
        wait_for(lambda: not (runs_dir / "stop b").exists() and states(run) == stopped)
        assert run.status().state == "running"
        run.cancel()
        assert run.status().state == "cancelled"
        assert states(run) == {"a": "succeeded", "b": "cancelled", "c": "cancelled", "d": "not run"}
    wait_for(lambda: not jobs_of(run))
    assert sorted(starts()) == ["a", "b", "c"]

    for name in ("stop b", "hold b"):
        (runs_dir / name).touch()
    (runs_dir / "hold c").unlink()
    run.resume(detach=True)
    wait_for(lambda: sorted(starts()[3:]) == ["b", "c"])
    with nothing_starts():
        (runs_dir / "hold b").unlink()
        wait_for(lambda: states(run) == {"a": "succeeded", "b": "queued", "c": "succeeded", "d": "queued"})
        assert run.status().reason.startswith("b: ")
    assert run.wait() == 0
    assert sorted(starts()[3:-1]) == ["b", "b", "c"] and starts()[-1] == "d"


def test_no_more_points_than_asked_for_are_submitted_at_once(cluster, runs_dir, starts):
    for number in "12":
        (runs_dir / f"hold {number}").touch()
    pipeline = sweep("s", points(3))
    run = run_pipeline(pipeline, SlurmExecutor(**PLACE), runs_dir, detach=True, parallel=2)
    wait_for(lambda: sorted(starts()) == ["1", "2"])
    wait_for(lambda: states(run) == {"1": "running", "2": "running", "3": "waiting"})
    (runs_dir / "hold 2").unlink()
    wait_for(lambda: starts()[2:] == ["3"])
    (runs_dir / "hold 1").unlink()
    assert run.wait() == 0


@pytest.mark.slow
def test_two_hundred_points_by_one_submission(cluster, runs_dir, record_testsuite_property, tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    programs = tmp_path / "programs"
    programs.mkdir()
    real = shutil.which("sbatch")
    (programs / "sbatch").write_text(f'#!/bin/sh\ndate +%s.%N >>{calls}\n{real} "$@" && date +%s.%N >>{calls}\n')
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for number in range(1, 201):
        (runs_dir / f"hold {number:03}").touch()
    pipeline = sweep("s", points(200))
    run = run_pipeline(pipeline, SlurmExecutor(**PLACE), runs_dir, detach=True)
    try:
        before, after = map(float, calls.read_text().split())
        record_testsuite_property("sbatch seconds", after - before)
        written = [json.loads(path.read_text()) for path in sorted(run.path.glob("stages/*/state.json"))]
        numbers = [state["supervisor"]["slurm_job_id"].split("_") for state in written]
        assert len({array for array, _ in numbers}) == 1
        assert [int(index) for _, index in numbers] == list(range(200))
    finally:
        subprocess.run(["scancel", "--user", "root"], check=True)


def test_more_points_than_an_array_can_have(runs_dir, starts, tmp_path_factory, monkeypatch):
    """Indices end one below MaxArraySize; Slurm itself refuses an array of one more."""
    with running_cluster(tmp_path_factory.mktemp("arrays"), 1, GPUS, MAX_ARRAY_SIZE=3) as folder:
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        too_long = ["sbatch", "--array=0-3", "--output=/dev/null", "--wrap", "true"]
        assert "Invalid job array" in subprocess.run(too_long, capture_output=True, text=True, check=False).stderr
        pipeline = sweep("s", points(7))
        run = run_pipeline(pipeline, SlurmExecutor(**PLACE), runs_dir, detach=True)
        written = [json.loads(path.read_text()) for path in sorted(run.path.glob("stages/*/state.json"))]
        numbers = [state["supervisor"]["slurm_job_id"].split("_") for state in written]
        assert [int(index) for _, index in numbers] == [0, 1, 2, 0, 1, 2, 0]
        assert len({array for array, _ in numbers}) == 3
        assert run.wait() == 0, run.status()
        assert sorted(starts()) == list("1234567")


def test_a_cluster_without_arrays(runs_dir, tmp_path_factory, monkeypatch):
    with running_cluster(tmp_path_factory.mktemp("arrays"), 1, GPUS, MAX_ARRAY_SIZE=0) as folder:
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        pipeline = sweep("s", points(2))
        with pytest.raises(
            RunError, match=r"takes no arrays \(MaxArraySize=0\): --parallel N submits the points singly$"
        ):
            run_pipeline(pipeline, SlurmExecutor(**PLACE), runs_dir, detach=True)
        assert not [*runs_dir.glob("s-*")]
        assert run_pipeline(pipeline, SlurmExecutor(**PLACE), runs_dir, parallel=2).status().state == "succeeded"


def test_a_stage_that_the_cluster_refuses_leaves_nothing_in_the_queue(cluster, runs_dir):
    pipeline = Pipeline("p", Stage("a", make_recipe()) >> Stage("b", make_recipe(num_nodes=12)))
    with pytest.raises(RunError, match=r"^b: "):
        run_pipeline(pipeline, SlurmExecutor(**PLACE), runs_dir)
    output = subprocess.run(["squeue", "--noheader", "--format=%o|%T"], capture_output=True, text=True, check=True)
    assert not [line for line in output.stdout.splitlines() if str(runs_dir) in line and "COMPLETING" not in line]
