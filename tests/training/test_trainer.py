"""What the trainer does beside training: validation, retention, early stopping, profiling, bf16."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from executors import Run
from neva_model.training.validation import validation_metrics
from neva_recipes.config import Recipe, build, load_recipe
from neva_recipes.plan import layout_of
from neva_recipes.plan.disk import disk_space
from neva_recipes.run_directory.metrics import read_metrics, validation_names
from neva_recipes.storage.best import best_checkpoint
from tests.training._results import losses, tensors

MakeRecipe = Callable[..., fdl.Config[Recipe]]


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def bf16(digits: Path) -> dict[str, object]:
    """Fields of a run that uses as much of the trainer as goes together."""
    return {
        "precision__precision": "bf16",
        "model__recompute_granularity": "full",
        "model__recompute_method": "uniform",
        "model__recompute_num_layers": 1,
        "data__validation_data_path": digits / "held_out.json",
        "trainer__val_check_interval": 2,
        "trainer__limit_val_batches": 4,
        "trainer__ema_decay": 0.5,
        "trainer__max_steps": 6,
        "trainer__profiler": "simple",
        "checkpoint__every_n_train_steps": 2,
        "checkpoint__monitor": "val_loss",
        "checkpoint__mode": "max",
    }


@pytest.fixture(scope="module")
def folder(
    digits: Path,
    bf16: dict[str, object],
    make_recipe: MakeRecipe,
    train: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of the runs of all tests, which one process has trained."""
    folder = tmp_path_factory.mktemp("trainer")
    few = folder / "few.jsonl"
    samples = json.loads(Path(str(make_recipe().data.data_path)).read_text())[:20]
    few.write_text("\n".join(json.dumps(sample) for sample in samples))
    stopping_early = make_recipe(
        data__validation_data_path=digits / "held_out.json",
        trainer__val_check_interval=1,
        trainer__limit_val_batches=2,
        trainer__max_steps=20,
        trainer__early_stopping_patience=2,
        checkpoint__monitor="val_loss",
        # The loss falls, so by this measure nothing ever improves.
        checkpoint__mode="max",
        optim__warmup_ratio=0,
    )
    saving_often = make_recipe(
        checkpoint__train_time_interval_minutes=1e-9, checkpoint__save_top_k=-1, trainer__max_steps=3
    )
    keeping_best = make_recipe(
        data__validation_data_path=digits / "held_out.json",
        trainer__val_check_interval=1,
        trainer__limit_val_batches=2,
        trainer__max_steps=4,
        # Too fast for more than a few steps.
        optim__lr=0.1,
        optim__lr_decay_style="constant",
        optim__warmup_ratio=0,
    )
    epoch_with_marks = make_recipe(
        data__data_path=few,
        data__group_by_modality_length="false",
        trainer__max_steps="none",
        trainer__max_epochs=1,
        model__use_im_start_end="true",
        model__language__vocab_size=642,
    )
    parts = {"few": samples[:5], "many": samples[5:], "joined": samples}
    for name, part in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(part))
    validations = {name: folder / f"{name}.json" for name in parts} | {
        "separate": f"{folder / 'few.json'},{folder / 'many.json'}"
    }
    validated = {
        f"validated_on_{name}": make_recipe(
            data__validation_data_path=files, trainer__max_steps=1, trainer__val_before_training=name == "few"
        )
        for name, files in validations.items()
    }
    train(
        make_recipe(**bf16, checkpoint__save_top_k=2),
        folder / "bf16",
        stopping_early=stopping_early,
        saving_often=saving_often,
        keeping_best=keeping_best,
        epoch_with_marks=epoch_with_marks,
        **validated,
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bf16", "stopping_early", "saving_often", "keeping_best", "epoch_with_marks"])
def test_the_plan_knows_the_size_and_number_of_checkpoints(folder: Path, name: str) -> None:
    found = [folder / name / "checkpoints" / each for each in checkpoints(folder / name)]
    recipe = build(load_recipe(found[-1] / "recipe.yaml"))
    space = disk_space(recipe, layout_of(recipe), recipe.trainer.max_steps)
    assert [sum(file.stat().st_size for file in each.iterdir()) for each in found] == [
        pytest.approx(space.checkpoint, rel=0.002)
    ] * len(found)
    # All are kept where nobody knows how many there will be.
    assert (space.kept is None) == (name == "saving_often")
    assert space.kept is None or len(found) <= space.kept


def assert_same_in_tensorboard(run: Path) -> None:
    """TensorBoard has the metrics of the CSV file, at the same steps, once each."""
    events = EventAccumulator(str(run / "metrics"))
    events.Reload()
    curves = read_metrics(run)
    assert set(events.Tags()["scalars"]) == set(curves)
    for name, curve in curves.items():
        logged = events.Scalars(name)
        assert [event.step for event in logged] == list(curve.steps), name
        assert [event.value for event in logged] == pytest.approx(list(curve.values), rel=1e-6), name


@pytest.mark.slow
def test_bf16_with_everything_on(
    bf16: dict[str, object], folder: Path, make_recipe: MakeRecipe, train: Any, tmp_path: Path
) -> None:
    run = folder / "bf16"
    validation = losses(run, "val_loss")
    assert len(validation) == 3
    # Worst first: the loss falls, so with mode=max the two earliest are best, and the last is kept too.
    assert validation[0] > validation[1] > validation[2]
    assert checkpoints(run) == ["step-00000002", "step-00000004", "step-00000006"]
    information = json.loads((run / "checkpoints" / "step-00000004" / "checkpoint.json").read_text())
    assert information["metrics"]["val_loss"] == pytest.approx(validation[1])
    assert "run_training_epoch" in next(run.glob("*profile*")).read_text()
    assert_same_in_tensorboard(run)

    again = tmp_path / "again"
    for name in ("step-00000002", "step-00000004"):
        shutil.copytree(run / "checkpoints" / name, again / "checkpoints" / name)
    shutil.copytree(run / "metrics", again / "metrics")  # of six steps, of which two are trained again
    train(make_recipe(**bf16, checkpoint__save_top_k=1), again)
    assert checkpoints(again) == ["step-00000002", "step-00000006"]
    assert_same_in_tensorboard(again)
    ours, theirs = (tensors(path / "checkpoints" / "step-00000006") for path in (again, run))
    assert ours.keys() == theirs.keys()
    assert {tensor.dtype for name, tensor in ours.items() if name.startswith("language.")} == {torch.bfloat16}
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.slow
def test_early_stopping(folder: Path) -> None:
    run = folder / "stopping_early"
    assert len(losses(run)) == 3
    assert checkpoints(run)[-1] == "step-00000003"


@pytest.mark.slow
def test_a_checkpoint_every_few_seconds(folder: Path) -> None:
    assert checkpoints(folder / "saving_often") == ["step-00000001", "step-00000002", "step-00000003"]


@pytest.mark.slow
def test_the_best_is_kept_beside_the_last(folder: Path) -> None:
    run = folder / "keeping_best"
    validation = losses(run, "val_loss")
    best = 1 + validation.index(min(validation))
    assert best < 4
    assert checkpoints(run) == [f"step-{best:08d}", "step-00000004"]
    found, loss = best_checkpoint(run) or (run, 0.0)
    assert (found.name, loss) == (f"step-{best:08d}", pytest.approx(min(validation), rel=1e-6))


@pytest.mark.slow
def test_each_validation_file_has_a_loss_of_its_own(folder: Path) -> None:
    losses_of = {name: read_metrics(folder / f"validated_on_{name}") for name in ("few", "many", "joined", "separate")}
    last = {name: {metric: curve.last.value for metric, curve in found.items()} for name, found in losses_of.items()}
    assert last["separate"]["val_loss/few"] == pytest.approx(last["few"]["val_loss"], rel=1e-6)
    assert last["separate"]["val_loss/many"] == pytest.approx(last["many"]["val_loss"], rel=1e-6)
    assert last["separate"]["val_loss"] == pytest.approx(last["joined"]["val_loss"], rel=1e-6)
    assert last["few"]["val_loss"] != pytest.approx(last["many"]["val_loss"], rel=1e-3)
    # One file is validated before the first step too, whose learning rate is zero: its loss must stay.
    before = losses_of["few"]["val_loss"]
    assert list(before.steps) == [0, 1] and before.values[0] == before.values[1]
    assert len(losses_of["many"]["val_loss"]) == 1
    assert checkpoints(folder / "validated_on_few") == ["step-00000001"]
    results = Run(folder / "validated_on_separate").results()
    assert list(results.val_losses) == ["few", "many"]
    assert results.val_losses["few"][0].value == pytest.approx(last["few"]["val_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/de.jsonl", "b/en.txt.gz"], ["de", "en"]),
        (["de/valid.jsonl", "en/valid.jsonl", "x.txt"], ["de/valid", "en/valid", "x"]),
        (["/a/de/text/valid.idx", "/a/en/text/valid.idx"], ["de/text/valid", "en/text/valid"]),
        (["val/wiki.en.jsonl", "val/wiki.ur.jsonl.gz"], ["wiki.en", "wiki.ur"]),
        (["a.json", "a.jsonl", "b/.txt"], ["a.json", "a.jsonl", ".txt"]),
    ],
)
def test_names_of_validation_files_are_distinct(paths: list[str], names: list[str]) -> None:
    assert validation_names(paths) == names


def test_metrics_of_a_validation_by_hand() -> None:
    sums = [[6.0, 3.0], [2.0, 1.0], [0.0, 0.0]]
    metrics = validation_metrics(sums, ["de.txt", "en.txt", "none.txt"], is_text=True)
    two = pytest.approx(math.exp(2))
    assert metrics == {
        **dict.fromkeys(("val_loss", "val_loss/de", "val_loss/en"), 2.0),
        **dict.fromkeys(("val_perplexity", "val_perplexity/de", "val_perplexity/en"), two),
    }
    assert validation_metrics([[6.0, 3.0]], ["de.txt"], is_text=False) == {"val_loss": 2.0}
    assert validation_metrics([[3e3, 1.0]], ["de.txt"], is_text=True)["val_perplexity"] == math.inf


@pytest.mark.slow
def test_one_epoch_with_marks_around_images(folder: Path) -> None:
    assert len(losses(folder / "epoch_with_marks")) == 3  # 20 samples in batches of 8, rounded up
