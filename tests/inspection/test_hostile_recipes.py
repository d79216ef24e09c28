"""Recipes made to break what reads, checks and plans them: one line that names the field, and no traceback."""

import itertools

import pytest

from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import RecipeError, build, recipe_to_yaml

NAME, EPSILON = "name: llava.finetune\n", "  adam_eps: 1.0e-08\n"
ALIASES = "".join(f", &{after} [{','.join([f'*{name}'] * 9)}]" for name, after in itertools.pairwise("abcdefghijk"))

# What stands in place of a line of a recipe, and parts of the answer.
FILES = {
    "thousands of digits": (NAME, f"name: 1{'0' * 5000}\n", ["cannot be read as YAML", "digits"]),
    "an integer beyond floats": (EPSILON, f"  adam_eps: 1{'0' * 400}\n", ["optim.adam_eps=", "a number > 0"]),
    "a number beyond floats": (EPSILON, "  adam_eps: 1.0e+400\n", ["optim.adam_eps=inf", "a number > 0"]),
    "brackets in brackets": (NAME, f"name: {'[' * 3000}{']' * 3000}\n", ["name=[[...]]: expected a string"]),
    "tables in tables": (NAME, f"name: {'{a: ' * 90}1{'}' * 90}\n", ["name={...}: expected a string"]),
    "a list of itself": (NAME, "name: &n [*n]\n", ["name=[[...]]: expected a string"]),
    "a group that holds itself": ("optim:\n", "optim: &o\n  x: *o\n", ["cannot be read as YAML"]),
    "aliases of aliases": (NAME, f"name: [&a [1]{ALIASES}]\n", ["name=[[...], [...]", "expected a string"]),
}


@pytest.mark.parametrize("case", FILES)
def test_hostile_files(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line, replacement, parts = FILES[case]
    text = recipe_to_yaml(llava.finetune("tiny"))
    assert line in text
    (tmp_path / "a.yaml").write_text(text.replace(line, replacement))
    assert main(["a.yaml", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: a.yaml: ") and err.count("\n") == 1
    assert all(part in err for part in parts), err
    assert len(err) < 300


@pytest.mark.parametrize("field", ["data.global_batch_size", "model.language.hidden_size", "model.language.vocab_size"])
def test_integers_that_nothing_can_be_computed_from(field, capsys):
    assert main(["llava.finetune", "size=tiny", f"{field}=1{'0' * 400}", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {field}=") and "expected an integer >= 1" in err
    # The largest ones that are taken can be planned, whatever the plan says of them.
    assert main(["llava.finetune", f"{field}={2**63 - 2**20}", "--dry-run", "--format", "json"]) in (0, 2)


def test_integers_from_python():
    recipe = llava.finetune("tiny")
    recipe.trainer.seed = 10**5000
    with pytest.raises(RecipeError, match=r"trainer\.seed=\(an integer of 16610 bits\): expected an integer"):
        build(recipe)


def test_a_gpu_without_a_name_is_not_the_assumed_one(capsys):
    assert main(["llava.finetune", "size=tiny", "--dry-run", "--gpu", ""]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: --gpu : expected one of a100-40g")
