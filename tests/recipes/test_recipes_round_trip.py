"""Any valid recipe survives YAML, and the command-line spelling of every field gives back its value."""

import typing

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neva_recipes import gpt, llava, neva
from neva_recipes.config import (
    RecipeError,
    build,
    format_value,
    items_of,
    iterate_fields,
    load_recipe,
    recipe_from_yaml,
    recipe_to_yaml,
    set_field,
)

RECIPES = [llava.pretrain, llava.finetune, neva.pretrain, neva.finetune, gpt.pretrain, gpt.continue_pretrain]

# What people call files and projects: anything on one line, and what YAML could take for something else.
HOSTILE = [
    "no",
    "null",
    "~",
    "2e-5",
    "1_0",
    "0x1f",
    "12:30",
    "2024-01-01",
    "- a",
    "a: b",
    "#",
    "'\"",
    "&x",
    ".5",
    " a ",
]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20), st.sampled_from(HOSTILE)
)


def values_for(annotation):
    """Return a strategy of values of a field's type, the ranges left to the validator."""
    strategies = []
    for member in typing.get_args(annotation) if typing.get_origin(annotation) not in (None, list) else (annotation,):
        if member is type(None):
            strategies.append(st.none())
        elif member is bool:
            strategies.append(st.booleans())
        elif member is str:
            strategies.append(TEXTS)
        elif isinstance(member, str):
            strategies.append(st.just(member))
        elif typing.get_origin(member) is list:
            strategies.append(st.lists(values_for(typing.get_args(member)[0]), max_size=3))
        elif typing.get_origin(member) is not None:
            strategies.append(values_for(member))
        elif member is int:
            strategies.append(st.integers(-3, 64))
        elif member is float:
            strategies.append(st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2))
    return st.one_of(strategies)


def _fields_of(recipe):
    """Return the fields of a recipe but the families, whose names only the plan knows."""
    return [field for field in iterate_fields(recipe) if not field.path.endswith((".family", ".vision_model_type"))]


@st.composite
def changed_recipes(draw):
    """Draw a recipe with up to six fields changed, each to a value that leaves it valid."""
    recipe = draw(st.sampled_from(RECIPES))()
    for field in draw(st.lists(st.sampled_from(_fields_of(recipe)), max_size=6, unique_by=lambda field: field.path)):
        *groups, name = field.path.split(".")
        node = recipe
        for group in groups:
            node = getattr(node, group)
        before = getattr(node, name)
        setattr(node, name, draw(values_for(field.annotation)))
        try:
            build(recipe)
        except RecipeError:
            setattr(node, name, before)
    return recipe


@settings(deadline=None, max_examples=60)
@given(changed_recipes())
def test_a_recipe_survives_yaml(recipe):
    text = recipe_to_yaml(recipe)
    loaded = recipe_from_yaml(text)
    assert build(loaded) == build(recipe)
    assert recipe_to_yaml(loaded) == recipe_to_yaml(recipe_from_yaml(recipe_to_yaml(loaded)))
    # Other YAML readers take no string for a number, a date or nothing.
    assert yaml.safe_load(text)["name"] == build(recipe).name


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text):
    recipe = llava.finetune("tiny")
    recipe.name = recipe.data.data_path = text
    saved = recipe_to_yaml(recipe)
    built = build(recipe_from_yaml(saved))
    # null is nothing in a field that may hold nothing.
    assert (built.name, built.data.data_path) == (text, None if text == "null" else text)
    assert yaml.safe_load(saved)["name"] == text
    assert text == "null" or yaml.safe_load(saved)["data"]["data_path"] == text


@settings(deadline=None, max_examples=60)
@given(changed_recipes())
def test_every_field_can_be_set_from_its_command_line_spelling(recipe):
    fresh = gpt.pretrain() if recipe.model.vision is None else llava.finetune()
    for field in iterate_fields(recipe):
        if field.path in ("model.vision", "model.projector"):
            continue
        # An optional text field cannot hold the word none: that is how it is cleared.
        assume(not (isinstance(field.value, str) and field.value.lower() in ("none", "null")))
        set_field(fresh, field.path, format_value(field.value))
    for name in ("data_path", "validation_data_path"):  # one path, and a list of it, mean the same
        for draft in (fresh, recipe):
            setattr(draft.data, name, items_of(getattr(draft.data, name)))
    assert build(fresh) == build(recipe)


@pytest.mark.parametrize("function", RECIPES)
def test_a_file_gives_back_the_recipe(function, tmp_path):
    path = tmp_path / "with spaces, 'quotes' and ümläuts.yaml"
    path.write_text(recipe_to_yaml(function()), encoding="utf-8")
    assert build(load_recipe(path)) == build(function())


def edited(old, new):
    text = recipe_to_yaml(llava.finetune("tiny"))
    assert text.count(old) >= 1
    return text.replace(old, new, 1)


def test_numbers_are_read_as_people_write_them():
    assert build(recipe_from_yaml(edited("lr: 0.001", "lr: 2e-5"))).optim.lr == 2e-5
    assert build(recipe_from_yaml(edited("lr: 0.001", "lr: 1"))).optim.lr == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (edited("  lr: 0.001\n", ""), "f.yaml: optim.lr is missing; a saved recipe names every field"),
        (edited("lr: 0.001", "lr: 0.001\n  lr: 0.002"), ": 'lr' is there twice"),
        (edited("lr: 0.001", "learning_rate: 0.001"), "optim.learning_rate: no such field; expected one of lr, min_lr"),
        (edited("image_folder:", "image_foldr:"), "data.image_foldr: no such field (did you mean image_folder"),
        (edited("LlavaDataConfig", "LavaDataConfig"), "expected one of LlavaDataConfig, TextDataConfig"),
        (edited("optim:\n", "optim: 3\nother:\n"), "f.yaml: other: no such field; expected one of name, model"),
        (edited("freeze: true", "freeze: yes"), "f.yaml: model.vision.freeze='yes': expected true or false"),
        ("", "f.yaml: the file: expected a group of fields, got NoneType"),
        ("a: [", "f.yaml: not valid YAML: line 1: expected the node content"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "f.yaml: not valid YAML: line 1: could not determine a constructor",
        ),
    ],
)
def test_a_file_that_is_wrong(text, answer):
    with pytest.raises(RecipeError) as mistake:
        recipe_from_yaml(text, "f.yaml")
    assert answer in str(mistake.value)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("text", ["a\nb", "tab\there", "\udcff", "\0"])
def test_text_that_no_file_can_hold_is_refused(text):
    recipe = llava.finetune("tiny")
    recipe.data.data_path = text
    with pytest.raises(RecipeError, match=r"data\.data_path=.*a line break, a control character or a byte"):
        build(recipe)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match=r"absent\.yaml: no such file$"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match=r"latin\.yaml: cannot be read: byte \d+ is not UTF-8 text$"):
        load_recipe(tmp_path / "latin.yaml")


def test_a_file_with_a_character_that_is_no_text():
    with pytest.raises(RecipeError, match=r"^f.yaml: not valid YAML: .*special characters are not allowed"):
        recipe_from_yaml("name: \x01", "f.yaml")


def test_a_recipe_of_an_earlier_version_keeps_its_meaning() -> None:
    saved = recipe_to_yaml(llava.finetune("tiny"))
    later = "  lr_decay_steps: null\n"
    assert later in saved
    assert recipe_to_yaml(recipe_from_yaml(saved.replace(later, ""), "f.yaml")) == saved
