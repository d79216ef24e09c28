"""Warnings of plans: told once before anything starts, kept with the run, and only where they hold."""

import dataclasses
import json

import executor_jobs
import place_jobs
import pytest

import executors
from executors.pipelines.directory import run_warnings
from executors.process import gpu
from executors.warnings import PlanWarning, joined_warnings, saved_warnings, warnings_of
from neva_recipes import llava
from neva_recipes.plan import plan
from neva_recipes.plan.fitting.machine import CpuMachine
from neva_recipes.plan.serialization import plan_to_plain

WARNING = "optim.min_lr=0.0001, optim.lr_decay_style=constant: "


@pytest.fixture
def told(script, runs_dir, capfd):
    """Start a run that warns of one thing; return what is on standard error, and the run."""

    def start(**options):
        recipe = executor_jobs.make_recipe()
        recipe.optim.lr_decay_style, recipe.optim.min_lr = "constant", 1e-4
        job = executors.plan_job(recipe, runs_dir=runs_dir)
        job = dataclasses.replace(job, argv=(executor_jobs.sys.executable, "-S", str(script("pass"))))
        run = executors.start_job(job, **options)
        return capfd.readouterr().err.splitlines(), run

    return start


@pytest.mark.multiprocess
def test_a_launch_and_a_resume_tell_each_warning_once(told, capfd):
    lines, run = told()
    line, end = lines
    assert line.startswith(f"warning: {WARNING}") and end == f"{run.name} succeeded: {run.path}"
    run.resume()
    assert capfd.readouterr().err.splitlines() == lines
    run.resume(quiet=True)
    assert capfd.readouterr().err == ""
    assert run_warnings(run) == [line.removeprefix("warning: ")]
    saved = run.path / "plan.json"
    assert json.loads(saved.read_text())["gpu_assumed"]
    run.resume(executor=executors.LocalExecutor(gpu="a100-sxm4-40gb"), quiet=True)
    assert json.loads(saved.read_text())["gpu"]["name"] == "a100-40g" and run.executor().gpu == "a100-sxm4-40gb"
    lines, _ = told(quiet=True)
    assert lines == []


def test_a_run_under_way_loses_its_name_to_a_newer_one(place, runs_dir, capfd):
    def launch(name, **options):
        run = executors.start_job(place_jobs.make_job(place, runs_dir, name=name), detach=True, **options)
        return run, capfd.readouterr().err

    first, error = launch("digits")
    assert error == ""
    assert launch("digits-2")[1] == ""  # another name that begins alike
    second, error = launch("digits")
    assert error == f"note: {first.name} is still queued: the name digits stands for the newer one now\n"
    assert launch("digits", quiet=True)[1] == ""
    assert executors.find_run("digits", runs_dir).path not in (first.path, second.path)
    place.tell("succeeded")
    place.set_alive(False)
    assert launch("digits")[1] == ""


def test_stages_share_a_warning_and_points_are_counted():
    plain, other = PlanWarning(("a", "x"), "x=1: bad"), PlanWarning(("b", "y"), "y=2: bad")
    stages = [("pretrain", [plain, other]), ("export", []), ("finetune", [plain])]
    assert list(joined_warnings(stages, is_sweep=False)) == ["pretrain, finetune: x=1: bad", "pretrain: y=2: bad"]
    points = [("1", [plain]), ("2", [PlanWarning(("a", "x"), "x=3: bad")]), ("3", [other])]
    assert list(joined_warnings(points, is_sweep=True)) == ["x=1: bad (2 of 3 points)", "y=2: bad (1 of 3 points)"]


def test_the_memory_of_an_assumed_gpu_says_nothing_where_there_is_none(monkeypatch):
    recipe = llava.pretrain("7b")
    recipe.data.micro_batch_size, recipe.data.global_batch_size = 128, 1024  # 32 fill an h100-80g
    recipe.trainer.max_epochs, recipe.trainer.max_steps = None, 1  # more steps take too long without a GPU

    def about_memory(here, gpu=None):
        monkeypatch.setattr(executors.LocalExecutor, "cpu_machine", lambda self: here)
        planned = plan(recipe, executors.LocalExecutor(), gpu=gpu)
        lines = [warning.line for warning in warnings_of(planned)]
        assert [each.line for each in saved_warnings(json.loads(json.dumps(plan_to_plain(planned))))] == lines
        return any("GiB" in line for line in lines)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    large = CpuMachine(2**40, 1024)
    assert about_memory(None) and not about_memory(large)
    assert about_memory(CpuMachine(2**30, 1))  # refused there: it is for another machine
    recipe.trainer.accelerator = "gpu"  # it says that it is for another machine
    assert about_memory(large)


def test_a_machine_has_a_gpu_by_its_driver_or_its_devices(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "_DRIVER", tmp_path / "driver")
    monkeypatch.setattr(gpu, "_DEVICES", tmp_path / "dev")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert not gpu.has_gpu({})
    (tmp_path / "dev" / "nvidia0").touch()
    assert gpu.has_gpu({}) and gpu.has_gpu({"CUDA_VISIBLE_DEVICES": "0"})
    assert not gpu.has_gpu({"CUDA_VISIBLE_DEVICES": ""}) and not gpu.has_gpu({"CUDA_VISIBLE_DEVICES": "-1"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert executors.LocalExecutor().cpu_machine() is None
    hidden = executors.LocalExecutor(env={"CUDA_VISIBLE_DEVICES": ""}).cpu_machine()
    assert hidden is not None and hidden.memory is not None and hidden.memory > 2**28 and hidden.cores >= 1
