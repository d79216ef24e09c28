"""Recipes are taken apart, changed and put together in Python, under the same rules as on the command line."""

import copy
import dataclasses
import re

import fiddle as fdl
import pytest

from neva_recipes import gpt, llava, neva, parts
from neva_recipes.config import (
    ProjectorConfig,
    Recipe,
    RecipeError,
    VisionConfig,
    build,
    config,
    recipe_from_yaml,
    recipe_to_yaml,
    set_field,
)
from neva_recipes.families import image_length


def test_every_call_returns_a_recipe_of_its_own():
    changed = llava.finetune()
    changed.model.language.num_layers = 2
    changed.data.global_batch_size = 64
    assert build(llava.finetune()).model.language.num_layers == 32
    assert build(llava.pretrain()).data.global_batch_size == 256


def test_replacing_the_vision_tower():
    recipe = llava.finetune()
    recipe.model.vision = parts.clip_vit_large(image_size=224)
    assert image_length(build(recipe).model.vision) == 256
    recipe.model.vision = config(
        VisionConfig,
        vision_model_type="siglip",
        num_layers=27,
        hidden_size=1152,
        ffn_hidden_size=4304,
        image_size=384,
        hidden_act="gelu_pytorch_tanh",
    )
    assert image_length(build(recipe).model.vision) == 729


def test_combining_two_recipes():
    mixed = llava.finetune("13b")
    mixed.name = "llava.with_neva_vision"
    mixed.model.vision = neva.finetune().model.vision
    mixed.optim = neva.finetune("13b").optim
    built = build(mixed)
    assert built.model.vision == build(neva.finetune()).model.vision
    assert built.optim == build(neva.finetune()).optim
    assert built.model.language == build(llava.finetune("13b")).model.language
    assert build(recipe_from_yaml(recipe_to_yaml(mixed))) == built


def test_a_text_model_gets_eyes():
    recipe = gpt.pretrain("tiny")
    recipe.model.vision, recipe.model.projector = parts.clip_tiny(), parts.projector("linear")
    recipe.data = llava.pretrain("tiny").data
    assert build(recipe).model.projector.num_layers == 1


def test_a_shared_branch_stays_shared_until_it_is_copied():
    first, second = llava.pretrain(), llava.finetune()
    second.model.vision = copy.deepcopy(first.model.vision)
    first.model.vision.vision_select_layer = -1
    assert build(second).model.vision.vision_select_layer == -2


def test_a_saved_recipe_names_every_field():
    text = recipe_to_yaml(llava.finetune())
    for node in (Recipe, VisionConfig, ProjectorConfig):
        for field in dataclasses.fields(node):
            assert re.search(rf"^ *{field.name}:", text, re.MULTILINE), field.name


def test_saved_defaults_outlive_a_change_of_the_code():
    # What config() wrote out is set, not looked up when the recipe is built.
    assert "weight_decay" in llava.finetune().optim.__arguments__


# The same mistake, made on the command line, in Python, and in a file, gets the same answer.
MISTAKES = [
    ("optim.lr", "fast", "fast"),
    ("optim.lr", "0", 0),
    ("data.micro_batch_size", "1.5", 1.5),
    ("data.conv_template", "vicuna", "vicuna"),
    ("model.vision.freeze", "maybe", "maybe"),
    ("model.projector.mm_projector_type", "mlp3", "mlp3"),
    ("parallel.tensor_model_parallel_size", "-1", -1),
    ("trainer.seed", "none", None),
    ("model.recompute_modules", "mlp,lungs", ["mlp", "lungs"]),
]


@pytest.mark.parametrize(("path", "text", "value"), MISTAKES)
def test_one_validator_for_command_line_python_and_file(path, text, value):
    with pytest.raises(RecipeError) as on_command_line:
        set_field(llava.finetune("tiny"), path, text)

    recipe = llava.finetune("tiny")
    *groups, name = path.split(".")
    node = recipe
    for group in groups:
        node = getattr(node, group)
    setattr(node, name, value)
    with pytest.raises(RecipeError) as in_python:
        build(recipe)

    spelled = "null" if value is None else value
    saved = recipe_to_yaml(llava.finetune("tiny")).splitlines()
    depth, line_number = 0, -1
    for part in (*groups, name):
        pattern = re.compile(rf"{'  ' * depth}{part}:")
        line_number = next(i for i in range(line_number + 1, len(saved)) if pattern.match(saved[i]))
        depth += 1
    saved[line_number] = f"{'  ' * (depth - 1)}{name}: {spelled}"
    with pytest.raises(RecipeError) as in_file:
        recipe_from_yaml("\n".join(saved), "mine.yaml")

    told, place = str(in_python.value).rsplit(" (", 1)  # in Python, the line that has set it
    assert re.fullmatch(rf"{re.escape(__file__)}, line \d+\)", place)
    assert str(in_file.value) == f"mine.yaml: {told}"
    expected = told.partition(": expected ")[2]
    assert expected and str(on_command_line.value).partition(": expected ")[2] == expected
    assert str(on_command_line.value).startswith(f"{path}=")


def test_a_misspelt_field_in_python_is_refused_at_once():
    recipe = llava.finetune()
    with pytest.raises(AttributeError, match=r"lrr.*valid parameter names: lr, min_lr"):
        recipe.optim.lrr = 1e-3
    with pytest.raises(RecipeError, match=r"VisionConfig has no field image_sise \(did you mean image_size"):
        config(VisionConfig, image_sise=224)
    with pytest.raises(RecipeError, match=r"config\(VisionConfig, \.\.\.\): a value has no name: write FIELD=VALUE"):
        config(VisionConfig, 224)


def test_a_finished_object_in_a_recipe_is_refused_with_the_remedy():
    recipe = llava.finetune()
    recipe.model.projector = ProjectorConfig(mm_projector_type="linear")
    with pytest.raises(RecipeError, match=r"model\.projector is a finished ProjectorConfig: write config\("):
        build(recipe)
    recipe.model.projector = fdl.Config(dict)
    with pytest.raises(RecipeError, match=r"model\.projector describes dict: expected a class of neva_recipes\.config"):
        build(recipe)
    recipe.model.projector = parts.clip_tiny()
    with pytest.raises(RecipeError, match=r"model\.projector=VisionConfig: expected ProjectorConfig or none"):
        build(recipe)


@pytest.mark.parametrize(
    ("function", "size", "hint"),
    [(llava.finetune, "13", "did you mean 13b"), (neva.pretrain, "tiny", "one of 7b, 13b"), (gpt.pretrain, 7, "tiny")],
)
def test_a_size_that_does_not_exist(function, size, hint):
    with pytest.raises(RecipeError, match=hint):
        function(size)
