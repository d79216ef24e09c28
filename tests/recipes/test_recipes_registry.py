"""Recipes are found by name: built in, in a Python file, and in installed packages."""

import sys

import pytest

from neva_recipes.config import RecipeError, build
from neva_recipes.registry import find_recipe, list_recipes

BUILT_IN = [
    "llava.pretrain",
    "llava.finetune",
    "llava.lora",
    "llava.qlora",
    "neva.pretrain",
    "neva.finetune",
    "gpt.pretrain",
    "gpt.continue_pretrain",
]

MINE = '''
"""Recipes of my own."""

import fiddle as fdl

from helper_beside_it import STEPS
from neva_recipes import llava
from neva_recipes.config import Draft, LanguageConfig, LlavaRecipe, Recipe, VisionConfig
from neva_recipes.llava import pretrain


def digits(steps: int = STEPS, lr: float | None = None, *, mixed=True) -> fdl.Config[Recipe]:
    """Digits, one by one.

    More words.

    Args:
        steps: How long
            it takes.
        lr: Peak learning rate.
    """
    recipe = llava.finetune("tiny")
    recipe.trainer.max_steps = steps
    recipe.optim.lr = lr or 0.5
    recipe.data.on_bad_sample = "skip" if mixed else "error"
    return recipe


def needs(what: str):
    recipe = llava.finetune("tiny")
    recipe.name = what
    return recipe


def broken():
    return {}["missing"]


def wrong_type():
    return llava.finetune("tiny").model


def small_model() -> fdl.Config[LanguageConfig]:
    return llava.finetune("tiny").model.language


def typed() -> Draft[LlavaRecipe]:
    return llava.finetune("tiny")


def as_checkers_see_it() -> Recipe:
    return llava.finetune("tiny")


def tower() -> Draft[VisionConfig]:
    return llava.finetune("tiny").model.vision


def number() -> int:
    return 3


def _private():
    return llava.finetune("tiny")
'''

LINE_OF_MISTAKE = 1 + MINE.splitlines().index('    return {}["missing"]')


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "it's a Ünïcode folder"
    folder.mkdir()
    (folder / "helper_beside_it.py").write_text("STEPS = 7\n")
    path = folder / "my recipes.py"
    path.write_text(MINE)
    yield path
    sys.modules.pop("helper_beside_it", None)


def test_built_in_recipes():
    entries = [entry for entry in list_recipes() if entry.origin == "built in"]
    assert [entry.name for entry in entries] == BUILT_IN
    for entry in entries:
        assert build(entry.make()).name == entry.name
        assert build(entry.make({"size": "13b"})).model.language.num_layers == 40
        assert len(entry.description.partition("\n")[0]) < 70


def test_recipes_of_a_file(mine):
    names = [entry.name for entry in list_recipes(mine)]
    mine_names = ["digits", "needs", "broken", "wrong_type", "typed", "as_checkers_see_it"]
    assert names[: len(mine_names)] == [f"my recipes.{name}" for name in mine_names]
    assert names[len(mine_names) : len(mine_names) + len(BUILT_IN)] == BUILT_IN

    digits = find_recipe("digits", mine)
    assert find_recipe("my recipes.digits", mine).name == digits.name
    assert digits.description == "Digits, one by one.\n\nMore words."
    assert [(p.name, p.default, p.meaning) for p in digits.parameters] == [
        ("steps", 7, "How long it takes."),
        ("lr", None, "Peak learning rate."),
        ("mixed", True, ""),
    ]
    assert build(digits.make()).trainer.max_steps == 7
    changed = build(digits.make({"steps": "9", "lr": "1e-2", "mixed": "false"}))
    assert (changed.trainer.max_steps, changed.optim.lr, changed.data.on_bad_sample) == (9, 0.01, "error")


def test_nothing_is_written_beside_a_file(mine):
    before = sorted(mine.parent.iterdir())
    find_recipe("digits", mine).make()
    assert sorted(mine.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("digits", {"steps": "many"}, "my recipes.digits steps='many': expected an integer"),
        ("digits", {"mixed": "7"}, "my recipes.digits mixed='7': expected true or false"),
        ("needs", {}, "my recipes.needs needs what: add what=VALUE"),
        ("broken", {}, f"my recipes.py, line {LINE_OF_MISTAKE}: KeyError: 'missing'"),
        ("wrong_type", {}, "my recipes.wrong_type returned a Draft of ModelConfig"),
    ],
)
def test_mistakes_in_a_recipe_function(mine, name, arguments, answer):
    with pytest.raises(RecipeError) as mistake:
        find_recipe(name, mine).make(arguments)
    assert answer in str(mistake.value)


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("a.py", "def f(:\n", "a.py, line 1: SyntaxError: invalid syntax"),
        ("a.py", "x = 1\nimport no_such_module_anywhere\n", "a.py, line 2: ModuleNotFoundError: No module named"),
        ("a.py", "x = 1 / 0\n", "a.py, line 1: ZeroDivisionError"),
        ("a.py", "x = 1\n", "a.py: has no recipe"),
        ("a.py", b"x = '\xff'\n", "a.py, line 1: SyntaxError: (unicode error)"),
        ("a.txt", "", "a.txt: expected a Python file whose name ends in .py"),
        ("absent.py", None, "absent.py: no such file"),
        ("llava.py", "def finetune(): pass\n", "llava.finetune is the name of a built-in recipe: rename the file"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, name, text, answer):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as mistake:
        list_recipes(tmp_path / name)
    assert answer in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_only_names_in_all_are_recipes_where_a_file_has_one(tmp_path):
    path = tmp_path / "chosen.py"
    path.write_text(
        "from neva_recipes.llava import finetune\n__all__ = ['finetune']\ndef other():\n    return finetune('tiny')\n"
    )
    assert [entry.name for entry in list_recipes(path)][:2] == ["chosen.finetune", "llava.pretrain"]


def test_a_name_that_does_not_exist():
    with pytest.raises(RecipeError, match=r"lava\.finetun: no such recipe or command \(did you mean llava\.finetune"):
        find_recipe("lava.finetun")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that installs a package with entry points, as pip would leave it."""

    def install(name, source, entry_points):
        (tmp_path / f"{name}.py").write_text(source)
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[neva_recipes.recipes]\n{entry_points}\n")

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    for name in ("mylab_recipes", "otherlab_recipes"):
        sys.modules.pop(name, None)


SOURCE = """
from neva_recipes import llava

def digits(steps: int = 3):
    "Digits of a package."
    recipe = llava.finetune("tiny")
    recipe.trainer.max_steps = steps
    return recipe

number = 3
"""


def test_recipes_of_installed_packages(package):
    package("mylab_recipes", SOURCE, "mylab.digits = mylab_recipes:digits")
    entry = find_recipe("mylab.digits")
    assert entry.origin == "package mylab_recipes"
    assert build(entry.make({"steps": "5"})).trainer.max_steps == 5
    assert [found.name for found in list_recipes()] == [*BUILT_IN, "mylab.digits"]


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("mylab_recipes:digit", "recipe lab.x (mylab_recipes:digit): AttributeError"),
        ("no_such_package:digits", "recipe lab.x (no_such_package:digits): ModuleNotFoundError"),
        ("mylab_recipes:number", "recipe lab.x (mylab_recipes:number): expected a function, got a value of type int"),
    ],
)
def test_a_broken_package_is_named_and_harms_no_other_recipe(package, value, answer):
    package("mylab_recipes", SOURCE, f"lab.x = {value}")
    with pytest.raises(RecipeError) as mistake:
        find_recipe("lab.x").make()
    assert answer in str(mistake.value)
    assert build(find_recipe("llava.finetune").make()).name == "llava.finetune"


def test_two_packages_with_one_name(package):
    package("mylab_recipes", SOURCE, "lab.digits = mylab_recipes:digits")
    package("otherlab_recipes", SOURCE, "lab.digits = otherlab_recipes:digits")
    with pytest.raises(RecipeError, match=r"lab\.digits: offered by package .* and package .*; uninstall one"):
        find_recipe("lab.digits")
