"""Checkpoints that several ranks have saved are read as one process would have saved them."""

import os
import subprocess
import sys

import pytest
import torch

from neva_model.checkpoints.information import saved_recipe
from neva_model.checkpoints.weights import CheckpointWeights, weight_shapes
from neva_model.model import build_model
from tests.converting.layouts import CASES, LAYOUTS, recipe_of
from tests.exported_models import ModelWeights

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Have four processes save every model under every layout."""
    output = tmp_path_factory.mktemp("saved")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.converting.saving_worker", str(output)],
            env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "4", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(4)
    ]
    try:
        logs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(log[-3000:] for log in logs)
    return output


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_one_process(layout, case, saved):
    checkpoint = saved / layout / case / "step-00000001"
    read = CheckpointWeights(checkpoint, saved_recipe(checkpoint))
    # Initial weights do not depend on the layout.
    recipe = recipe_of(case)
    whole = ModelWeights(build_model(recipe, pre_process=True, post_process=True))
    factor = 2 if case == "averaged" else 1
    for name, shape in weight_shapes(recipe.model).items():
        weight = read.read(name)
        assert tuple(weight.shape) == shape and weight.dtype == read.dtype(name)
        assert torch.equal(weight, whole.read(name) * factor), name
