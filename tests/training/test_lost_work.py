"""Whatever fails after steps were trained, the steps are there, and the run that goes on is the undisturbed one."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch

from neva_recipes.config import Recipe
from tests.training._results import losses, tensors
from tests.training.test_stop import go_on, wait_for_pause

MakeRecipe = Callable[..., fdl.Config[Recipe]]

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

STEPS = 14
EARLY_END = 12
"""The loss falls, so with the largest one wanted no validation after the first, at step 3, is an improvement."""
RECIPE = {
    "trainer__max_steps": STEPS,
    "trainer__devices": 2,
    "trainer__val_check_interval": 3,
    "trainer__limit_val_batches": 4,
    "trainer__early_stopping_patience": 3,
    "trainer__ema_decay": 0.9,
    "checkpoint__every_n_train_steps": 2,
    "checkpoint__monitor": "val_loss",
    "checkpoint__mode": "max",
    "checkpoint__save_top_k": 2,
    "data__num_workers": 0,  # each rank has the batch of the next step when it takes one
    "model__language__hidden_dropout": 0.1,
}


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def information(run: Path, step: int) -> dict[str, Any]:
    """What a checkpoint says of itself, without what depends on the hour."""
    found = json.loads((checkpoint(run, step) / "checkpoint.json").read_text())
    measured = ("step_time", "samples_per_second", "tokens_per_second")
    found["metrics"] = {name: value for name, value in found["metrics"].items() if name not in measured}
    # Torch's own metadata hold the path and a random number, Lightning's state how many validation batches ever ran.
    del found["files"], found["digest"], found["digests"][".metadata"], found["digests"]["common.pt"]
    return found


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").iterdir())


def fails(worker: Any) -> str:
    """Wait for a run that ends for a mistake of the user's, on all ranks, and return its line."""
    assert [process.wait(300) for process in worker.processes] == [2] * len(worker.processes), worker.log()
    assert "Traceback" not in worker.log()
    failure = json.loads((worker.run_directory / "failure.json").read_text())
    assert failure["kind"] == "user"
    (worker.run_directory / "failure.json").unlink()
    assert f"error: {failure['message']}\n" in worker.log()
    return failure["message"]


def trained(step: int) -> str:
    return rf"^step {step}/{STEPS}  loss"


def kill(worker: Any, *, validated: bool) -> None:
    """Kill a run at its moment, before or after the validation of step 6."""
    wait_for_pause(worker)
    worker.kill()
    assert (f"step 6/{STEPS}  val loss" in worker.log()) == validated


def images_of(data: Path) -> list[Path]:
    names = {record["image"] for record in json.loads(data.read_text()) if "image" in record}
    return [data.parent / "images" / name for name in sorted(names)]


def spoil(images: Iterable[Path]) -> dict[Path, bytes]:
    """Cut pictures off where only who decodes them can see it, and return what they were."""
    whole = {image: image.read_bytes() for image in images}
    for image, content in whole.items():
        image.write_bytes(content[: len(content) // 2])
    return whole


def mend(whole: dict[Path, bytes]) -> None:
    for image, content in whole.items():
        image.write_bytes(content)


def test_failures_and_kills_around_validations_leave_the_same_run(
    digits: Path, make_recipe: MakeRecipe, start_worker: Any, train: Any, tmp_path: Path
) -> None:
    recipe = make_recipe(**RECIPE, data__validation_data_path=digits / "held_out.json")
    undisturbed, run = train(recipe, tmp_path / "undisturbed"), tmp_path / "run"
    log = (undisturbed / "rank-0.log").read_text()
    assert f"stopped early at step {EARLY_END}: val_loss has not improved for 3 validations" in log

    # A sample of the validation that has gone bad since the start, at a step that no checkpoint was due at.
    whole = {}
    worker = start_worker(recipe, run, pause=(0, trained(1)))
    try:
        wait_for_pause(worker)
        whole = spoil(images_of(digits / "held_out.json")[:1])
        go_on(worker)
        assert "held_out.json: sample 0" in fails(worker)
    finally:
        mend(whole)
    assert steps_of(run) == [2, 3]
    saved = information(run, 3)
    assert saved["on_request"] and saved["validation"] == "due" and "val_loss" not in saved["metrics"]

    # One of the training, which one rank or the other meets while both go on.
    whole = {}
    worker = start_worker(recipe, run, pause=(0, trained(4)))
    try:
        wait_for_pause(worker)
        assert len(losses(run, "val_loss")) == 1
        whole = spoil(images_of(digits / "finetune.json"))
        go_on(worker)
        assert "finetune.json: sample" in fails(worker)
    finally:
        mend(whole)
    assert steps_of(run) == [2, 4, 5]
    assert "saved step 5 before ending: step-00000005" in worker.log()

    # Kills during validations whose step was due, and after one: the next start validates, or counts what it was told.
    validating = r"^open .*images/"
    kill(start_worker(recipe, run, pause=(0, trained(6), validating)), validated=False)
    assert (max(steps_of(run)), information(run, 6)["validation"]) == (6, "due")
    kill(start_worker(recipe, run, pause=(0, trained(7))), validated=True)
    assert (max(steps_of(run)), information(run, 6)["validation"]) == (6, "done")
    kill(start_worker(recipe, run, pause=(0, trained(EARLY_END), validating)), validated=True)
    assert (max(steps_of(run)), information(run, EARLY_END)["validation"]) == (EARLY_END, "due")
    worker = start_worker(recipe, run)
    assert worker.wait() == 0, worker.log()
    assert f"stopped early at step {EARLY_END}" in worker.log()

    assert steps_of(run) == steps_of(undisturbed)
    for step in steps_of(run):
        assert information(run, step) == information(undisturbed, step)
        ours, theirs = tensors(checkpoint(run, step)), tensors(checkpoint(undisturbed, step))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for column in ("reduced_train_loss", "lr", "grad_norm", "val_loss"):
        assert losses(run, column) == losses(undisturbed, column), column

    # A finished run is finished, however often it is asked to go on.
    before = len(worker.log())
    worker = start_worker(recipe, run)
    assert worker.wait() == 0, worker.log()
    assert re.findall(r"^step \d+", worker.log()[before:], re.MULTILINE) == []
    assert f"stopped early at step {EARLY_END}" in worker.log()[before:]


def test_metrics_that_cannot_be_written_and_a_last_validation_that_fails(
    digits: Path, make_recipe: MakeRecipe, start_worker: Any, tmp_path: Path
) -> None:
    fields = {"trainer__max_steps": STEPS, "data__num_workers": 0}
    recipe = make_recipe(**fields, data__validation_data_path=digits / "held_out.json", trainer__limit_val_batches=1)
    worker = start_worker(recipe, tmp_path, pause=(0, trained(2)))
    wait_for_pause(worker)
    (tmp_path / "metrics" / "metrics.incomplete").mkdir()  # where the file is written anew
    go_on(worker)
    assert "metrics.incomplete" in fails(worker)
    assert steps_of(tmp_path) == [3]
    (tmp_path / "metrics" / "metrics.incomplete").rmdir()

    whole = spoil(images_of(digits / "held_out.json")[:1])
    try:
        assert "held_out.json: sample 0" in fails(start_worker(recipe, tmp_path))
    finally:
        mend(whole)
    assert steps_of(tmp_path) == [3, STEPS]

    # Nothing but the validation is left to do.
    worker = start_worker(recipe, tmp_path)
    assert worker.wait() == 0, worker.log()
    assert steps_of(tmp_path) == [STEPS]
    saved, [measured] = information(tmp_path, STEPS), losses(tmp_path, "val_loss")
    assert saved["validation"] == "done" and f"{saved['metrics']['val_loss']:.8g}" == f"{measured:.8g}"
