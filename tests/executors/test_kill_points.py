"""Killed before any call that changes a folder, a launch or a resume leaves what the next one goes on from."""

import json
import shutil
import signal
import sys
from datetime import timedelta

import executor_jobs
import place_jobs
import pytest

import executors
from executors.runs.run import Run
from neva_recipes.config import build, load_recipe
from neva_recipes.run_directory.state import read_state
from neva_recipes.storage.checkpoints import record_text
from tests.kill_points import Attempts

pytestmark = pytest.mark.multiprocess

STEPS = (10, 20, 30)
KEPT = ("recipe.yaml", "plan.json", "job.json", "launch.sh")


def launch(place, runs_dir):
    executors.start_job(place_jobs.make_job(place, runs_dir), detach=True)


def resume(path):
    recipe = executor_jobs.make_recipe()
    recipe.optim.lr = 0.125
    Run(path).resume(recipe, detach=True, go_on_from="step-10")


def hidden_in(folder):
    """Return what should not be there; what was before an attempt is kept until it trains, which none does here."""
    return [path for path in folder.rglob(".*") if path.name not in (".lock", ".reserve", ".before")]


def test_launches(place, tmp_path):
    number, killed = 0, -signal.SIGKILL
    while killed:
        number += 1
        runs_dir = tmp_path / f"runs-{number}"
        runs_dir.mkdir()
        attempts = Attempts(runs_dir, tmp_path / "log")
        killed, calls = attempts.run(lambda runs_dir=runs_dir: launch(place, runs_dir), number)
        assert killed in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        before = executors.list_runs(runs_dir)
        assert attempts.run(lambda runs_dir=runs_dir: launch(place, runs_dir))[0] == 0, (tmp_path / "log").read_text()
        runs = executors.list_runs(runs_dir)
        assert len(runs) == len(before) + 1 and {path.name for path in runs_dir.iterdir()} == {run.name for run in runs}
        for run in runs:
            build(load_recipe(run.path / "recipe.yaml"))
            assert run.saved_plan() is not None
            if run.status().state == "lost":  # it has its name, and has not been started
                assert killed and read_state(run.path).state == "created"
                run.resume(detach=True)
            assert run.status().state == "queued"
        assert not hidden_in(runs_dir)
    assert number > 10 and number == calls + 1


def test_resumes_from_an_earlier_checkpoint(place, tmp_path):
    number, killed = 0, -signal.SIGKILL
    while killed:
        number += 1
        place.set_alive(True)
        run = executors.start_job(place_jobs.make_job(place, tmp_path / f"runs-{number}"), detach=True)
        place.set_alive(False)
        for step in STEPS:
            folder = run.path / "checkpoints" / f"step-{step:08d}"
            folder.mkdir(parents=True)
            record = {"step": step, "consumed_samples": 0, "metrics": {}, "files": {}, "digests": {}}
            (folder / "checkpoint.json").write_text(record_text(record))
            shutil.copy(run.path / "recipe.yaml", folder)
        (run.path / "metrics").mkdir()
        (run.path / "metrics" / "metrics.csv").write_text("step\n10\n20\n30\n")
        first = build(load_recipe(run.path / "recipe.yaml")).optim.lr
        attempts = Attempts(run.path, tmp_path / "log")
        killed, calls = attempts.run(lambda path=run.path: resume(path), number)
        assert killed in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        if killed:
            status = Run(run.path).status()
            assert status.state in ("lost", "created") and "cannot be read" not in (status.reason or "")
            assert attempts.run(lambda path=run.path: resume(path))[0] == 0, (tmp_path / "log").read_text()
        assert not hidden_in(run.path)
        names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
        assert names == ["aside-step-00000020", "aside-step-00000030", "step-00000010"]
        assert [path.name for path in (run.path / "metrics").iterdir() if "aside" in path.name] == [
            "aside-step-00000030.csv"
        ]
        assert [build(load_recipe(path)).optim.lr for path in run.recipe_files()] == [first, 0.125]
        # However often it was killed, a refusal would lead back to what has trained.
        kept = run.path / ".before"
        assert sorted(path.name for path in kept.iterdir()) == sorted((*KEPT, "state.json", "names.json"))
        assert build(load_recipe(kept / "recipe.yaml")).optim.lr == first
        assert json.loads((run.path / "state.json").read_text())["state"] == "queued"
    assert number > 10 and number == calls + 1


def test_gc_asks_a_thousand_runs_a_thousand_times_as_much_as_one(place, tmp_path):
    """Calls are counted, not seconds: twice as many runs make no more than about twice as many."""

    def calls_for(count):
        runs_dir = tmp_path / str(count)
        for number in range(count):
            run = executors.start_job(place_jobs.make_job(place, runs_dir, name=f"n{number}"), detach=True)
            state = json.loads((run.path / "state.json").read_text())
            ended = {**state, "state": "succeeded", "exit_code": 0, "ended": "2026-01-01T00:00:00+00:00"}
            (run.path / "state.json").write_text(json.dumps(ended))
            (run.path / "data_cache").mkdir()
        counted = 0

        def count_call(frame, event, argument):
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(count_call)
        try:
            found = executors.find_leftovers(runs_dir, timedelta(days=1))
        finally:
            sys.setprofile(None)
        assert len(found) == count
        return counted

    calls_for(2)  # what is imported at the first time
    assert calls_for(80) < 2.5 * calls_for(40)
