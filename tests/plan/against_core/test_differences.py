"""What counts as running otherwise than the recipe asks for: faults planted in what ranks report."""

import dataclasses
import re

import pytest

from neva_model.model import cpu_compat

cpu_compat.install()

from tests.plan.against_core.differences import differences, in_one_process  # noqa: E402 after Core is prepared
from tests.plan.against_core.rank import Measured  # noqa: E402
from tests.plan.against_core.recipes import text_recipe  # noqa: E402

# Two stages of two layers, four microbatches in each of two steps: attention and MLP run 2 x 2 x 4 x 2 times on a rank.
RECIPE = text_recipe({"parallel.pipeline_model_parallel_size": 2})
RANK = Measured(losses=[4.0, 3.9], grad_norms=[2.0, 2.1], forwards=32, layers=2, attention_widths={32})
ALONE = dataclasses.replace(RANK, forwards=16, layers=4)


def test_the_reference_is_the_same_training_in_one_process() -> None:
    alone = in_one_process(RECIPE)
    assert alone.parallel.pipeline_model_parallel_size == alone.trainer.devices == 1
    assert alone.data.micro_batch_size == alone.data.global_batch_size == RECIPE.data.global_batch_size
    assert alone.model.language == RECIPE.model.language
    assert differences(RECIPE, [RANK, RANK], ALONE) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"losses": [4.0, 3.901]}, "losses .* on rank 1"),
        ({"grad_norms": [2.0, float("nan")]}, "grad_norms .* on rank 1"),
        ({"forwards": 40}, "ran 72 times, 64 times"),
        ({"attention_widths": {30}}, "wide, not 32"),
    ],
)
def test_a_fault_of_one_rank_is_said(fault: dict[str, object], said: str) -> None:
    found = differences(RECIPE, [RANK, dataclasses.replace(RANK, **fault)], ALONE)
    assert len(found) == 1 and re.search(said, found[0])


def test_training_nothing_is_a_difference() -> None:
    still = dataclasses.replace(RANK, grad_norms=[0.0, 0.0])
    found = differences(RECIPE, [still, still], dataclasses.replace(ALONE, grad_norms=[0.0, 0.0]))
    assert found == ["nothing is trained"]
