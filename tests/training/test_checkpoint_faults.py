"""Damaged, foreign and impossible checkpoints: one clear line, and nothing lost."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch

from neva_recipes.config import Recipe
from neva_recipes.storage.checkpoints import record_text
from tests.training._results import losses, tensors

MakeRecipe = Callable[..., fdl.Config[Recipe]]
SETTINGS = {"trainer__max_steps": 4, "checkpoint__every_n_train_steps": 2, "checkpoint__save_top_k": -1}


@pytest.fixture(scope="module")
def finished(make_recipe: MakeRecipe, train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage-1 run with checkpoints after 2 and 4 steps."""
    return train(make_recipe("pretrain", **SETTINGS), tmp_path_factory.mktemp("finished") / "run")


def error_of(run: Path) -> str:
    """Return the one line with which a run has failed."""
    log = (run / "rank-0.log").read_text()
    lines = [line for line in log.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, log
    assert "Traceback" not in log
    failure = json.loads((run / "failure.json").read_text())
    assert failure == {"rank": 0, "kind": "user", "message": lines[0].removeprefix("error: ")}
    return lines[0]


def fails(start_worker: Any, recipe: fdl.Config[Recipe], run: Path) -> str:
    """Run a worker that must stop with exit code 2 and return its one line of error."""
    worker = start_worker(recipe, run)
    assert worker.wait() == 2, worker.log()
    return error_of(run)


def truncate_shard(checkpoint: Path) -> str:
    shard = max(checkpoint.glob("*.distcp"), key=lambda path: path.stat().st_size)
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    return f"{shard.name}: has "


def remove_shard(checkpoint: Path) -> str:
    shard = next(checkpoint.glob("*.distcp"))
    shard.unlink()
    return f"{shard.name}: is missing"


def remove_information(checkpoint: Path) -> str:
    (checkpoint / "checkpoint.json").unlink()
    return "checkpoint.json is missing"


def remove_metadata(checkpoint: Path) -> str:
    (checkpoint / ".metadata").unlink()
    return ".metadata: is missing"


def break_information(checkpoint: Path) -> str:
    (checkpoint / "checkpoint.json").write_text('{"step": 2')
    return "cannot be read"


DAMAGES = {
    damage.__name__: damage
    for damage in (truncate_shard, remove_shard, remove_information, remove_metadata, break_information)
}
# Fields of another model, and what is said of them.
OTHERS = {
    "narrower": (
        {"model__language__hidden_size": 64},
        "model.language.hidden_size is 128 there and 64 in the recipe",
    ),
    "projector": (
        {"model__projector__mm_projector_type": "linear"},
        "mm_projector_type is mlp2x_gelu there and linear",
    ),
    "optimizer": (
        {"parallel__use_distributed_optimizer": "false"},
        "use_distributed_optimizer is true there and false",
    ),
}


@pytest.fixture(scope="module")
def resumed(
    finished: Path, make_recipe: MakeRecipe, start_worker: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, str]]:
    """Every run that must fail, and what it must say, after all of them were tried in one process."""
    folder = tmp_path_factory.mktemp("resumed")
    recipes, expected = {}, {}
    for name in (*DAMAGES, *OTHERS):
        shutil.copytree(finished / "checkpoints", folder / name / "checkpoints")
        fields, expected[name] = OTHERS.get(name, ({"trainer__max_steps": 6}, ""))
        recipes[name] = make_recipe("pretrain", **{**SETTINGS, **fields})
    for name, damage in DAMAGES.items():
        expected[name] = damage(folder / name / "checkpoints" / "step-00000004")
    first, *others = recipes
    worker = start_worker(recipes[first], folder / first, **{name: recipes[name] for name in others})
    assert worker.wait() == 2, worker.log()
    return {name: (folder / name, expected[name]) for name in recipes}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DAMAGES, *OTHERS])
def test_resuming_from_a_checkpoint_that_cannot_be(name: str, resumed: dict[str, tuple[Path, str]]) -> None:
    run, expected = resumed[name]
    assert (run / "exit-code-0").read_text() == "2"
    assert expected in error_of(run)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.slow
def test_hand_over_to_stage_two(
    finished: Path, make_recipe: MakeRecipe, train: Any, start_worker: Any, tmp_path: Path
) -> None:
    stage_two = {
        "model__projector__from_pretrained": finished,
        "model__vision__from_pretrained": finished / "checkpoints" / "step-00000002",
        "trainer__max_steps": 1,
    }
    run = train(make_recipe("finetune", **stage_two), tmp_path / "two")
    # The first step of the warm-up has a learning rate of zero.
    ours, theirs = tensors(run / "checkpoints" / "step-00000001"), tensors(finished / "checkpoints" / "step-00000004")
    names = [name for name in theirs if name.startswith(("projector.", "vision."))]
    assert names
    for name in names:
        assert torch.equal(ours[name], theirs[name]), name
    information = json.loads((finished / "checkpoints" / "step-00000004" / "checkpoint.json").read_text())
    log = (tmp_path / "two" / "rank-0.log").read_text()
    assert f"projector: loaded from {finished / 'checkpoints' / 'step-00000004'} (step 4), 33,024 parameters" in log
    assert information["projector_digest"][:19] in log

    tampered = tmp_path / "tampered"
    shutil.copytree(finished / "checkpoints" / "step-00000004", tampered)
    information["projector_digest"] = "sha256:0"
    del information["digest"]
    (tampered / "checkpoint.json").write_text(record_text(information))
    recipe = make_recipe("finetune", model__projector__from_pretrained=tampered)
    assert "the projector's digest is sha256:" in fails(start_worker, recipe, tmp_path / "three")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", directory], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.mark.slow
def test_a_full_disk_while_saving(
    small_disk: Path, make_recipe: MakeRecipe, start_worker: Any, train: Any, tmp_path: Path
) -> None:
    run = small_disk / "run"
    recipe = make_recipe("finetune", **SETTINGS)
    worker = start_worker(recipe, run, another=recipe)
    assert worker.wait() == 2, worker.log()
    line = error_of(run)
    assert "the disk is full" in line and "earlier checkpoints are untouched" in line
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    first = error_of(small_disk / "another")
    assert "the disk is full" in first and "earlier" not in first
    # What the writer says of it means nothing to users.
    assert "inline_container" not in worker.log()
    moved = tmp_path / "moved"
    shutil.copytree(run / "checkpoints", moved / "checkpoints")
    train(recipe, moved)
    assert len(losses(moved)) == 2
