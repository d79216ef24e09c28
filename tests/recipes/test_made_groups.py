"""A group that its fields make is there as soon as one of them is set, and nowhere else."""

import pytest

from neva_recipes import gpt
from neva_recipes.config import (
    RecipeError,
    RopeConfig,
    build,
    config,
    lay_over,
    recipe_from_plain,
    recipe_from_yaml,
    recipe_to_plain,
    recipe_to_yaml,
    set_field,
)

YARN = {"kind": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
WORDS = [f"model.language.rope.{name}={value}" for name, value in YARN.items()]


def made(*words):
    recipe = gpt.pretrain("tiny")
    for word in words:
        set_field(recipe, *word.split("=", 1))
    return recipe


def test_fields_make_it_in_any_order_and_none_takes_it_away():
    assert build(made()).model.language.rope is None
    for words in (WORDS, WORDS[::-1]):
        assert build(made(*words)).model.language.rope == RopeConfig(**YARN)
    assert build(made(*WORDS, "model.language.rope=none")).model.language.rope is None


def test_a_list_can_be_typed_and_added_to():
    rope = build(
        made("model.language.rope.kind=longrope", "model.language.rope.long_factor=1,2.5", WORDS[1])
    ).model.language.rope
    assert rope.long_factor == [1.0, 2.5]
    rope = build(made("model.language.rope.long_factor+=3", "model.language.rope.kind=longrope")).model.language.rope
    assert rope.long_factor == [3.0]


def test_without_a_kind_it_says_so():
    with pytest.raises(RecipeError, match=r"^model\.language\.rope\.kind is not set: expected one of default, linear"):
        build(made("model.language.rope.factor=4"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.language.rope.kind=su", "model.language.rope.kind='su': expected one of default, linear, dynamic, "),
        ("model.language.rope.type=yarn", "model.language.rope.type: no such field"),
        ("model.language.rope.factor=0", "model.language.rope.factor=.0.: expected a number > 0 or none"),
        ("model.vision.num_layers=3", "model.vision is none in this recipe, so it has no fields"),
        ("model.language.rope.kind.x=3", "model.language.rope.kind is a field, not a group of fields"),
    ],
)
def test_what_is_wrong_is_told_and_makes_nothing(word, message):
    recipe = made()
    with pytest.raises(RecipeError, match=message):
        set_field(recipe, *word.split("=", 1))
    assert recipe.model.language.rope is None


def test_a_file_makes_it_too(tmp_path):
    recipe = made()
    (tmp_path / "rope.yaml").write_text("model:\n  language:\n    rope:\n      kind: yarn\n      factor: 4\n")
    lay_over(recipe, tmp_path / "rope.yaml")
    assert build(recipe).model.language.rope == RopeConfig(kind="yarn", factor=4.0)
    (tmp_path / "rope.yaml").write_text("model:\n  language:\n    rope:\n      knd: yarn\n")
    with pytest.raises(RecipeError, match=r"rope\.yaml, line 4: model\.language\.rope\.knd: no such field .*kind"):
        lay_over(made(), tmp_path / "rope.yaml")


def test_saved_recipes_with_it_and_without_it_are_read():
    recipe = gpt.pretrain("tiny")
    recipe.model.language.rope = config(RopeConfig, **YARN)
    assert build(recipe_from_yaml(recipe_to_yaml(recipe))) == build(recipe) == build(made(*WORDS))
    old = recipe_to_plain(made("model.language.rope_scaling_factor=8"))
    del old["model"]["language"]["rope"]
    language = build(recipe_from_plain(old)).model.language
    assert language.rope is None and language.rope_scaling_factor == 8.0
