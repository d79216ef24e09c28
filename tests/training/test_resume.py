"""Runs that are killed at any moment end with the weights of an undisturbed run."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch

from neva_recipes.config import Recipe
from tests.training._results import losses, tensors, weights_of

MakeRecipe = Callable[..., fdl.Config[Recipe]]
Train = Callable[[fdl.Config[Recipe], Path], Path]

STEPS = 20
SETTINGS = {
    "trainer__max_steps": STEPS,
    "trainer__ema_decay": 0.9,
    "checkpoint__every_n_train_steps": 2,
    "data__num_workers": 1,
    "model__language__hidden_dropout": 0.1,
}
LAST = f"step-{STEPS:08d}"


@pytest.fixture(scope="module")
def validated(digits: Path, make_recipe: MakeRecipe) -> fdl.Config[Recipe]:
    """A recipe that validates on the way and at its last step."""
    validation = {"data__validation_data_path": digits / "held_out.json", "trainer__limit_val_batches": 2}
    return make_recipe(**SETTINGS, **validation, trainer__val_check_interval=5)


@pytest.fixture(scope="module")
def undisturbed(validated: fdl.Config[Recipe], train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(validated, tmp_path_factory.mktemp("undisturbed"))


def kill_during_training(worker: Any, steps: int, randomness: random.Random) -> None:
    """SIGKILL the worker some moment after it has trained `steps` steps in all."""
    log = worker.run_directory / "metrics" / "metrics.csv"
    deadline = time.monotonic() + 300
    is_running = True
    while not log.exists() or len(log.read_text().splitlines()) <= steps:
        assert is_running and time.monotonic() < deadline, worker.log()
        is_running = worker.processes[0].poll() is None
        time.sleep(0.01)
    time.sleep(randomness.uniform(0, 0.3))
    worker.kill()


@pytest.mark.slow
def test_five_kills_leave_the_same_weights(
    validated: fdl.Config[Recipe], start_worker: Callable[..., Any], undisturbed: Path, tmp_path: Path
) -> None:
    randomness = random.Random(0)
    for steps in (1, 4, 8, 11, 15):
        kill_during_training(start_worker(validated, tmp_path), steps, randomness)
    worker = start_worker(validated, tmp_path)
    assert worker.wait() == 0, worker.log()
    assert "resuming from" in worker.log()
    ours, theirs = tensors(tmp_path / "checkpoints" / LAST), tensors(undisturbed / "checkpoints" / LAST)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("average.") for name in ours)
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert losses(tmp_path) == losses(undisturbed)
    assert losses(tmp_path, "val_loss") == losses(undisturbed, "val_loss") and len(losses(tmp_path, "val_loss")) == 4
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_weights_with_learning_rates_of_their_own_go_on_with_them(
    make_recipe: MakeRecipe, train: Train, tmp_path: Path
) -> None:
    rates = {"optim__lr_of__projector": 3e-4, "optim__lr_of__language__layers__1": 2e-3}
    settings = {"trainer__max_steps": 6, "checkpoint__every_n_train_steps": 3, "checkpoint__save_top_k": -1, **rates}
    recipes = {
        name: make_recipe(**settings, parallel__use_distributed_optimizer=shares)
        for name, shares in (("shared", True), ("whole", False))
    }
    train(recipes["shared"], tmp_path / "shared", whole=recipes["whole"])
    for name, recipe in recipes.items():
        half = tmp_path / f"{name}-half"
        shutil.copytree(tmp_path / name / "checkpoints/step-00000003", half / "checkpoints/step-00000003")
        train(recipe, half)
        assert losses(half) == losses(tmp_path / name)[3:]
        ours, theirs = (tensors(run / "checkpoints" / "step-00000006") for run in (half, tmp_path / name))
        assert all(torch.equal(ours[weight], theirs[weight]) for weight in theirs)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_resuming_under_another_layout(make_recipe: MakeRecipe, train: Train, tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "model__language__hidden_dropout": 0.0,
        "model__language__num_layers": 4,
        "checkpoint__every_n_train_steps": STEPS // 2,
        "checkpoint__save_top_k": -1,
    }
    interleaved = {
        "trainer__devices": 4,
        "parallel__context_parallel_size": 2,
        "parallel__pipeline_model_parallel_size": 2,
        "parallel__virtual_pipeline_model_parallel_size": 2,
    }
    # By name: what saves half of the run, and under which layout the other half is trained.
    resumes = {
        "tp2": ("whole", {"trainer__devices": 2, "parallel__tensor_model_parallel_size": 2}),
        "dp2": ("whole", {"trainer__devices": 2}),
        "cp2_pp2_vp2": ("whole", interleaved),
        "one": ("interleaved", {}),
    }
    whole = train(make_recipe(**settings), tmp_path / "whole", interleaved=make_recipe(**settings, **interleaved))
    for name, (source, _) in resumes.items():
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        half = f"step-{STEPS // 2:08d}"
        shutil.copytree(tmp_path / source / "checkpoints" / half, tmp_path / name / "checkpoints" / half)
    first, *others = ((name, make_recipe(**settings, **fields)) for name, (_, fields) in resumes.items())
    train(first[1], tmp_path / first[0], **dict(others))
    for name in resumes:
        run = tmp_path / name
        difference = max(abs(a - b) for a, b in zip(losses(run), losses(whole)[-len(losses(run)) :], strict=True))
        assert len(losses(run)) == STEPS - (STEPS // 2)
        largest = {}
        for kind in ("", "average."):
            ours, theirs = (weights_of(directory / "checkpoints" / LAST, kind) for directory in (run, whole))
            assert ours.keys() == theirs.keys()
            largest[kind] = max(float((ours[weight] - theirs[weight]).abs().max()) for weight in theirs)
            assert largest[kind] <= 1e-6
        print(f"{name}: largest difference of the loss {difference:.1e}, of the final weights {largest['']:.1e}")
        assert difference <= 1e-6
