"""Rotary positions of two models differ if they turn heads by other angles, whatever words a recipe has for them."""

from pathlib import Path

import pytest

from neva_model.checkpoints.information import check_same_model
from neva_recipes.config import CheckpointError, RopeConfig, build
from neva_recipes.families.rope import rope_differences
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.origins.checkpoints import model_differences
from tests.plan.wrong_fields import make

FIELD = "model.language.rope"
LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def recipe_of(rope=None, factor=None):
    return with_values(build(make("gpt.pretrain tiny")), {FIELD: rope, f"{FIELD}_scaling_factor": factor})


PLAIN, SHORT, LINEAR = recipe_of(), recipe_of(factor=8.0), recipe_of(RopeConfig(kind="linear", factor=3.0))
LONG = recipe_of(RopeConfig(kind="llama3", factor=8.0, **LLAMA_3))
YARN = recipe_of(RopeConfig(kind="yarn", factor=4.0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SHORT, LONG),
        (PLAIN, recipe_of(RopeConfig(kind="default"))),
        # The defaults of yarn (arXiv 2309.00071, 3.2), and the length of the tiny size.
        (YARN, recipe_of(RopeConfig(kind="yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=True))),
        (YARN, recipe_of(RopeConfig(kind="yarn", factor=4.0, original_max_position_embeddings=512))),
    ],
)
def test_the_same_positions_in_other_words_do_not_differ(one, other):
    assert list(model_differences(one, other, "language")) == list(model_differences(other, one, "language")) == []


@pytest.mark.parametrize(
    ("there", "here", "differences"),
    [
        (PLAIN, LINEAR, [("rope", None, "linear")]),
        (LINEAR, PLAIN, [("rope.kind", "linear", None), ("rope.factor", 3.0, None)]),
        (LINEAR, recipe_of(RopeConfig(kind="linear", factor=2.0)), [("rope.factor", 3.0, 2.0)]),
        (SHORT, PLAIN, [("rope_scaling_factor", 8.0, None)]),
        (SHORT, recipe_of(factor=4.0), [("rope_scaling_factor", 8.0, 4.0)]),
        (SHORT, LINEAR, [("rope_scaling_factor", 8.0, None), ("rope", None, "linear")]),
        (
            LINEAR,
            SHORT,
            [("rope_scaling_factor", None, 8.0), ("rope.kind", "linear", None), ("rope.factor", 3.0, None)],
        ),
        (LINEAR, YARN, [("rope.kind", "linear", "yarn"), ("rope.factor", 3.0, 4.0)]),
    ],
)
def test_each_field_is_named_with_both_values_and_setting_it_mends_it(there, here, differences):
    assert list(rope_differences(there.model.language, here.model.language)) == differences
    found = list(model_differences(there, here, "language"))
    assert found == [(f"model.language.{name}", value, held) for name, value, held in differences]
    mended = with_values(here, {path: value for path, value, _ in found})
    assert list(model_differences(there, mended, "language")) == []


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        (LINEAR, PLAIN, f"a: {FIELD}.kind is linear there and None in the recipe"),
        (PLAIN, LINEAR, f"a: {FIELD} is None there and linear in the recipe"),
    ],
)
def test_a_checkpoint_of_other_positions_is_refused_in_one_line(there, here, told):
    with pytest.raises(CheckpointError) as caught:
        check_same_model(Path("a"), there, here, ("language",))
    assert str(caught.value) == told
    check_same_model(Path("a"), LONG, SHORT, ("language",))
