"""Random small recipes: the plan finds an error exactly where Megatron-Core does not run them."""

import pytest

from tests.plan.against_core.core import ask_core
from tests.plan.against_core.random_layouts import disagreement, random_layouts

COUNT, SEED = 60, 3


@pytest.mark.multiprocess
@pytest.mark.slow
def test_the_plan_agrees_with_megatron_core() -> None:
    recipes = random_layouts(SEED, COUNT)
    verdicts = ask_core(recipes)
    works = sum(verdict.works for verdict in verdicts)
    assert COUNT // 4 < works < COUNT * 3 // 4
    lines = [disagreement(recipe, verdict) for recipe, verdict in zip(recipes, verdicts, strict=True)]
    assert [(line, recipe) for line, recipe in zip(lines, recipes, strict=True) if line] == []
