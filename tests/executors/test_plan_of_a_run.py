"""What the plan of a recipe means for a launch, and plan.json of the run directory."""

import json
import shutil
import subprocess

import pytest
from executor_jobs import make_job, make_recipe

import executors
from executors.process import gpu
from neva_recipes import llava
from neva_recipes.config import RecipeError
from neva_recipes.plan import plan
from neva_recipes.plan.serialization import plan_to_plain


def saved_plan(run):
    return json.loads((run.path / "plan.json").read_text())


@pytest.mark.multiprocess
def test_run_directory_has_the_plan_that_it_was_started_with(script, runs_dir):
    job = make_job(script("print('x')"), runs_dir, 2)
    run = executors.start_job(job, detach=True)
    assert run.wait() == 0
    assert (
        saved_plan(run) == json.loads(json.dumps(plan_to_plain(plan(make_recipe(2), job.executor)))) == run.saved_plan()
    )
    assert saved_plan(run)["layout"]["world_size"] == 2
    written = {name: (run.path / name).read_bytes() for name in ("recipe.yaml", "plan.json", "job.json", "launch.sh")}

    # The script by itself writes the same.
    shutil.rmtree(run.path)
    subprocess.run(["sh"], input=job.script(), text=True, check=True, stdout=subprocess.DEVNULL)
    assert {name: (run.path / name).read_bytes() for name in written} == written


@pytest.mark.multiprocess
def test_resume_makes_a_new_plan_of_a_changed_recipe(script, start):
    run = start(script("pass"))
    assert run.wait() == 0
    first = run.path / "plan.json"
    number = first.stat().st_ino
    run.resume()
    assert first.stat().st_ino == number and run.recipe_files() == [run.path / "recipe.yaml"]
    run.resume(make_recipe(2))
    assert saved_plan(run)["layout"]["world_size"] == 2 and run.record()["world_size"] == 2
    run.resume(make_recipe(3))
    assert saved_plan(run)["layout"]["world_size"] == 3
    assert [path.name for path in run.recipe_files()] == ["recipe.1.yaml", "recipe.2.yaml", "recipe.yaml"]
    # A run of a version that kept no plan gets one.
    first.unlink()
    assert run.saved_plan() is None
    run.resume()
    assert saved_plan(run)["layout"]["world_size"] == 3
    assert run.status().attempt == 5


def test_first_error_stops_a_launch_and_the_others_are_counted(runs_dir):
    recipe = make_recipe(2)
    recipe.parallel.sequence_parallel = True
    recipe.data.global_batch_size = 7
    errors = plan(recipe).errors
    assert len(errors) > 1
    for start in (executors.run, executors.plan_job):
        with pytest.raises(RecipeError) as raised:
            start(recipe, runs_dir=runs_dir)
        assert str(raised.value) == f"{errors[0].line()} (and {len(errors) - 1} more: --dry-run lists them)"
    assert not runs_dir.exists()


def test_a_missing_file_stops_a_launch_but_not_a_plan(runs_dir):
    recipe = make_recipe()
    recipe.data.data_path = "not here.txt"
    job = executors.plan_job(recipe, runs_dir=runs_dir)
    assert len(job.missing) == 1 and "not here.txt" in job.missing[0]
    with pytest.raises(RecipeError) as raised:
        executors.run(recipe, runs_dir=runs_dir)
    assert str(raised.value) == job.missing[0]
    assert not runs_dir.exists()


@pytest.fixture
def too_large():
    """Seven billion weights on one GPU, trained: at least 18 bytes for each."""
    recipe = llava.finetune("7b")
    recipe.trainer.devices = 1
    recipe.data.data_path = recipe.data.tokenizer = __file__
    return recipe


def test_memory_counts_where_the_gpu_is_known(too_large, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert executors.plan_job(too_large).plan.gpu_assumed
    with pytest.raises(RecipeError, match="h100-80g"):
        executors.plan_job(too_large, gpu="h100-80g")

    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ: 1\n")
    with pytest.raises(RecipeError, match="a100-40g"):
        executors.plan_job(too_large)
    assert executors.plan_job(too_large, gpu="b200").plan.gpu.name == "b200"
    named = executors.LocalExecutor(gpu="NVIDIA B200")  # goes before what the driver says
    assert executors.plan_job(too_large, named).plan.gpu.name == "b200"
    too_large.trainer.accelerator = "cpu"
    assert executors.plan_job(too_large).plan.gpu.name == "a100-40g"
