"""Checkpoints of each release of Megatron-Core are resumed under the other, by two Pythons that have one each."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch

from neva_recipes.config import Recipe
from neva_recipes.plan.core_release import CORE_RELEASES
from tests.training._results import losses, weights_of

STEPS, HALF = 6, "step-00000003"

SETTINGS = {
    "trainer__max_steps": STEPS,
    "trainer__ema_decay": 0.9,
    "checkpoint__every_n_train_steps": STEPS // 2,
    "checkpoint__save_top_k": -1,
    "model__language__hidden_dropout": 0.1,
}

LAYOUTS = {
    "alone": {},
    "tp2": {"trainer__devices": 2, "parallel__tensor_model_parallel_size": 2},
    "dp2": {"trainer__devices": 2},
}


@pytest.fixture(scope="module")
def pythons() -> dict[str, str]:
    """This Python and the one that OTHER_PYTHON names, by their release of Megatron-Core."""
    if (other := os.environ.get("OTHER_PYTHON")) is None:
        pytest.skip("OTHER_PYTHON names no Python with the other release of Megatron-Core")
    program = "import importlib.metadata; print(importlib.metadata.version('megatron-core'))"
    found = {
        subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip(): python
        for python in (sys.executable, other)
    }
    assert set(found) == set(CORE_RELEASES)
    return found


@pytest.mark.slow
@pytest.mark.multiprocess
def test_each_goes_on_from_a_checkpoint_of_the_other(
    pythons: dict[str, str],
    make_recipe: Callable[..., fdl.Config[Recipe]],
    start_worker: Callable[..., Any],
    tmp_path: Path,
) -> None:
    recipes = {name: make_recipe(**SETTINGS, **layout) for name, layout in LAYOUTS.items()}
    first, *others = recipes

    def train(place: Path, python: str) -> None:
        rest = {name: recipes[name] for name in others}
        worker = start_worker(recipes[first], place / first, python=python, **rest)
        assert worker.wait() == 0, worker.log()

    for release, python in pythons.items():
        train(tmp_path / release, python)
    for (release, python), other in zip(pythons.items(), reversed(pythons), strict=True):
        place = tmp_path / f"{other} under {release}"
        for name in LAYOUTS:
            half = Path(name) / "checkpoints" / HALF
            shutil.copytree(tmp_path / other / half, place / half)
        train(place, python)
        for name in LAYOUTS:
            resumed, whole = place / name, tmp_path / other / name
            assert "resuming from" in (resumed / "rank-0.log").read_text()
            pairs = list(zip(losses(resumed), losses(whole)[STEPS // 2 :], strict=True))
            print(f"{place.name}, {name}: largest difference of the loss {max(abs(a - b) for a, b in pairs):.1e}")
            assert [mine for mine, _ in pairs] == [theirs for _, theirs in pairs]
            for kind in ("", "average."):
                ours, theirs = (weights_of(run / "checkpoints" / f"step-{STEPS:08d}", kind) for run in (resumed, whole))
                assert ours.keys() == theirs.keys() != set()
                for weight in theirs:
                    assert torch.equal(ours[weight], theirs[weight]), weight
