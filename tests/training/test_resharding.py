"""`nemo-run reshard` on checkpoints of real runs: against those that Core saves under each layout, and resumed."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from neva_model.checkpoints.resharding.reshard import reshard
from neva_recipes.config import Recipe
from neva_recipes.storage.checkpoints import what_is_wrong
from tests.training._results import losses, tensors, weights_of

MakeRecipe = Callable[..., fdl.Config[Recipe]]
Train = Callable[..., Path]

LAYOUTS = {"one": (1, 1), "tp2": (2, 1), "pp2": (1, 2), "tp2_pp2": (2, 2)}
SETTINGS = {
    "trainer__max_steps": 4,
    "trainer__ema_decay": 0.9,
    "checkpoint__every_n_train_steps": 2,
    "checkpoint__save_top_k": -1,
    "model__language__num_layers": 4,
}
OTHER = {
    "trainer__devices": 4,
    "parallel__pipeline_model_parallel_size": 2,
    "parallel__virtual_pipeline_model_parallel_size": 2,
    "parallel__use_distributed_optimizer": False,
    "precision__precision": "bf16",
    "model__language__family": "gpt2",
    "model__language__num_query_groups": 4,
    "model__language__share_embeddings_and_output_weights": True,
}
"""Replicas, interleaved stages, and the optimizer that every rank holds whole; tied embeddings."""

HALF, LAST = "step-00000002", "step-00000004"


def layout_fields(name: str) -> dict[str, int]:
    tp, pp = LAYOUTS[name]
    return {
        "trainer__devices": tp * pp,
        "parallel__tensor_model_parallel_size": tp,
        "parallel__pipeline_model_parallel_size": pp,
    }


@pytest.fixture(scope="module")
def runs(make_recipe: MakeRecipe, train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under each layout, saved after its second step."""
    settings = {**SETTINGS, "trainer__max_steps": 2}
    recipes = {name: make_recipe(**settings, **layout_fields(name)) for name in LAYOUTS}
    recipes["other"] = make_recipe(**(settings | OTHER))
    folder = tmp_path_factory.mktemp("runs")
    train(recipes.pop("one"), folder / "one", **recipes)
    return folder


def saved_by(checkpoint: Path) -> dict[tuple[str, tuple[int, ...]], tuple[int, tuple[int, ...]]]:
    """Return which rank has saved which part of each tensor: its rank and its shape, by where it begins.

    Parts of one rank that follow each other are one: the rows of words and those that pad them may be saved apart.
    """
    table = FileSystemReader(checkpoint).read_metadata()
    ranks = {
        (index.fqn, tuple(index.offset or ())): int(place.relative_path.split("_")[2])
        for index, place in table.storage_data.items()
        if not index.fqn.startswith("random/")
    }
    shapes: dict[tuple[str, tuple[int, ...]], tuple[int, ...]] = dict.fromkeys(ranks, ())
    for name, entry in table.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            shapes |= {(name, tuple(chunk.offsets)): tuple(chunk.sizes) for chunk in entry.chunks}
    for name, first in sorted(ranks):
        if not name.endswith(("word_embeddings.weight", "output_layer.weight")) or (name, first) not in ranks:
            continue
        rows, *rest = shapes[name, first]
        below = (name, (first[0] + rows, *first[1:]))
        if ranks.get(below) == ranks[name, first]:
            shapes[name, first] = (rows + shapes.pop(below)[0], *rest)
            del ranks[below]
    return {key: (rank, shapes[key]) for key, rank in ranks.items()}


@pytest.mark.slow
@pytest.mark.multiprocess
def test_every_layout_becomes_every_other(runs: Path, tmp_path: Path) -> None:
    for source, target in itertools.product([*LAYOUTS, "other"], LAYOUTS):
        if source == target:
            continue
        before, made = runs / source / "checkpoints" / HALF, tmp_path / f"{source} {target}"
        reshard(before, made, *LAYOUTS[target])
        assert what_is_wrong(made, with_shards=True) is None
        ours, theirs = tensors(made), tensors(before)
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            rows = 640 if name.endswith(("word_embeddings.weight", "output_layer.weight")) else None
            assert ours[name].dtype == tensor.dtype and torch.equal(ours[name][:rows], tensor[:rows]), name
            assert rows is None or not ours[name][rows:].any(), name
        if source != "other":  # which is another model
            assert saved_by(made) == saved_by(runs / target / "checkpoints" / HALF), f"{source} {target}"


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_run_goes_on_as_from_the_checkpoint_before(
    runs: Path, make_recipe: MakeRecipe, train: Train, tmp_path: Path
) -> None:
    pairs = [("one", "tp2_pp2"), ("tp2_pp2", "one")]
    recipes = {}
    for source, target in pairs:
        before = runs / source / "checkpoints" / HALF
        for kind in ("before", "resharded"):
            name = f"{source} {target} {kind}"
            recipes[name] = make_recipe(**SETTINGS, **layout_fields(target))
            (tmp_path / name / "checkpoints").mkdir(parents=True)
            if kind == "before":
                shutil.copytree(before, tmp_path / name / "checkpoints" / HALF)
            else:
                reshard(before, tmp_path / name / "checkpoints" / HALF, *LAYOUTS[target])
    first = next(iter(recipes))
    train(recipes.pop(first), tmp_path / first, **recipes)
    for source, target in pairs:
        ours, theirs = (tmp_path / f"{source} {target} {kind}" for kind in ("resharded", "before"))
        assert losses(ours) == losses(theirs) and len(losses(ours)) == 2
        made, expected = tensors(ours / "checkpoints" / LAST), tensors(theirs / "checkpoints" / LAST)
        assert made.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(made[name], tensor), name
        log = "".join(path.read_text() for path in sorted(ours.glob("rank-*.log")))
        assert "resuming from" in log and "warning" not in log.lower(), log


@pytest.mark.slow
def test_weights_alone_start_a_run_and_resume_none(
    runs: Path, make_recipe: MakeRecipe, start_worker: Callable[..., Any], train: Train, tmp_path: Path
) -> None:
    before, alone = runs / "tp2" / "checkpoints" / HALF, tmp_path / "alone"
    reshard(before, alone, 1, 2, weights_only=True)
    assert not any(name.startswith("optimizer.") for name in tensors(alone))
    (tmp_path / "resumed" / "checkpoints").mkdir(parents=True)
    shutil.copytree(alone, tmp_path / "resumed" / "checkpoints" / HALF)
    worker = start_worker(make_recipe(**SETTINGS), tmp_path / "resumed")
    assert worker.wait() == 2
    assert "has no optimizer, without which no run goes on" in worker.log()
    parts = {f"model__{part}__from_pretrained": alone for part in ("language", "vision", "projector")}
    # At the first step of a warm-up the learning rate is zero.
    settings = {"trainer__max_steps": 1, "optim__warmup_steps": 1, "optim__warmup_ratio": "none"}
    run = train(make_recipe(**(SETTINGS | settings), **parts), tmp_path / "started")
    ours, theirs = weights_of(run / "checkpoints" / "step-00000001"), weights_of(before)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
