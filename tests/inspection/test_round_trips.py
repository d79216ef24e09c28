"""A recipe printed as YAML, JSON or Python is the same recipe when it is read back."""

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings

from neva_recipes import gpt, llava
from neva_recipes.cli.main import main
from neva_recipes.config import (
    RecipeError,
    build,
    iterate_fields,
    load_recipe,
    recipe_from_yaml,
    set_field,
    with_absolute_inputs,
)
from neva_recipes.inspection import (
    inspect_recipe,
    inspection_to_json,
    inspection_to_text,
    recipe_from_json,
    recipe_to_python,
)
from neva_recipes.inspection.page import inspection_to_html
from tests.recipes.test_recipes_round_trip import HOSTILE, changed_recipes

HOSTILE_CODE = ['"""', "'''", "\\", "\\N{BULLET}", "{x}", "%s", "</style><script>", "ünïcode \N{BULLET}", "#!", "r'"]


def run_python(code, tmp_path):
    """Run what was printed in a process of its own and return the recipe that it builds."""
    file = tmp_path / "printed.py"
    file.write_text(code, encoding="utf-8")
    probe = (
        "import runpy, sys\n"
        "from neva_recipes.config import recipe_to_yaml\n"
        "recipe = runpy.run_path(sys.argv[1])['build_config']()\n"
        "sys.stdout.reconfigure(encoding='utf-8', newline='')\n"
        "print(recipe_to_yaml(recipe))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe, file], capture_output=True, encoding="utf-8", check=True)
    return recipe_from_yaml(done.stdout)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed_recipes())
def test_any_recipe_survives_json_and_python(recipe):
    inspection = inspect_recipe(recipe, name="run")
    text = inspection_to_json(inspection)
    assert text.isascii()
    assert build(recipe_from_json(text)) == build(with_absolute_inputs(recipe))
    names = {}
    exec(recipe_to_python(recipe), names)
    assert names["build_config"]() == recipe
    # Whatever can be read back can be looked at, too.
    assert inspection_to_text(inspection).startswith("Recipe")
    assert inspection_to_html(inspection).isascii()


def test_python_runs_in_a_process_of_its_own(tmp_path):
    recipe = llava.finetune("13b")
    recipe.data.data_path = "".join(HOSTILE_CODE)
    recipe.name = '"""\\'
    recipe.model.recompute_modules = ["core_attn", "mlp"]
    assert build(run_python(recipe_to_python(recipe), tmp_path)) == build(recipe)


@pytest.mark.parametrize("text", [*HOSTILE, *HOSTILE_CODE])
def test_hostile_text_survives(text):
    recipe = gpt.pretrain("tiny")
    recipe.name = recipe.logging.wandb_project = text
    assert build(recipe_from_json(inspection_to_json(inspect_recipe(recipe, name="run")))) == build(recipe)
    names = {}
    exec(recipe_to_python(recipe), names)
    assert names["build_config"]() == recipe


def test_the_command_prints_what_can_be_run_again(tmp_path, capfd):
    """Each format, written to a file and used again, is the recipe with its overrides."""
    words = ["llava.finetune", "size=tiny", "optim.lr=0.25", "--dry-run", "--format"]
    expected = llava.finetune("tiny")
    expected.optim.lr = 0.25
    for form, name in (("yaml", "printed.yaml"), ("python", "printed.py"), ("json", "printed.json")):
        assert main([*words, form]) == 0
        out, err = capfd.readouterr()
        (tmp_path / name).write_text(out, encoding="utf-8")
        assert "note: --dry-run wrote and started nothing\n" in err
    assert build(load_recipe(tmp_path / "printed.yaml")) == build(expected)
    assert build(recipe_from_json((tmp_path / "printed.json").read_text())) == build(expected)
    for again in (["printed.yaml"], ["build_config", "--recipes", "printed.py"]):
        again = [str(tmp_path / word) if word.startswith("printed") else word for word in again]
        assert main([*again, "trainer.seed=9", "--dry-run", "--format", "json"]) == 0
        recipe = recipe_from_json(capfd.readouterr().out)
        assert {field.path for field in iterate_fields(recipe) if field.value != _value(expected, field.path)} == {
            "trainer.seed"
        }


def _value(recipe, path):
    return {field.path: field.value for field in iterate_fields(recipe)}[path]


def test_files_that_are_here_are_named_absolutely(folder, capfd):
    (folder / "text.txt").write_text("one\n")
    assert main(["gpt.pretrain", "size=tiny", "data.data_path=text.txt", "--dry-run", "--format", "json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["recipe"]["data"]["data_path"] == str(folder / "text.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", 'has no "recipe"'),
        ('{"schema": 1}', 'has no "recipe"'),
        ('{"schema": 99, "recipe": {}}', "schema 99: expected 1"),
        ('{"schema": 1, "recipe": {"nme": 1}}', "nme: no such field (did you mean name"),
    ],
)
def test_wrong_json_is_one_line(text, said):
    with pytest.raises(RecipeError) as refusal:
        recipe_from_json(text, "saved.json")
    assert str(refusal.value).startswith("saved.json: ") and said in str(refusal.value)


def test_json_is_for_the_other_direction_too():
    """What is loaded from JSON can be changed and launched like any other recipe."""
    recipe = recipe_from_json(inspection_to_json(inspect_recipe(llava.pretrain("tiny"))))
    set_field(recipe, "optim.lr", "1e-9")
    assert build(recipe).optim.lr == 1e-9
