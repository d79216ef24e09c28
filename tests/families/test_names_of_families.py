"""Families are found by name, and what a package offers in their place is told in one line."""

import dataclasses
import re

import pytest

from neva_recipes import llava
from neva_recipes.config import CheckpointError, RecipeError, build
from neva_recipes.families import language_family, vision_family
from neva_recipes.plan import plan
from neva_recipes.plan.huggingface.configuration import read_configuration
from tests.families.packages import install

BUILT_IN = "llama, qwen2, qwen3, mistral, internlm2, phi3, gpt2"
LANGUAGE = build(llava.finetune("tiny")).model.language
VISION = build(llava.finetune("tiny")).model.vision


def of_family(name):
    return language_family(dataclasses.replace(LANGUAGE, family=name))


@pytest.mark.parametrize(
    ("lookup", "message"),
    [
        (
            lambda: of_family("lama"),
            f"model.language.family=lama: no such family (did you mean llama?); expected {BUILT_IN}, lab",
        ),
        (
            lambda: of_family("clip"),
            f"model.language.family=clip: no such family; expected {BUILT_IN}, lab",
        ),
        (
            lambda: vision_family(dataclasses.replace(VISION, vision_model_type="siglib")),
            "model.vision.vision_model_type=siglib: no such family (did you mean siglip?); "
            "expected clip, siglip, dinov2",
        ),
    ],
)
def test_a_name_that_no_family_has(lookup, message, tmp_path, monkeypatch):
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert of_family("lab").model_type == "seed_oss"
    with pytest.raises(RecipeError, match=re.escape(message)):
        lookup()


def test_a_plan_tells_it_too():
    recipe = llava.finetune("tiny")
    recipe.model.vision.vision_model_type = "pixtral"
    told = "vision_model_type=pixtral: no such family; expected clip, siglip, dinov2"
    with pytest.raises(RecipeError, match=re.escape(told)):
        plan(build(recipe))


@pytest.mark.parametrize(
    ("source", "entry_points", "message"),
    [
        ("LAB = 3", "lab = own_a:LAB", "family lab (own_a:LAB): expected a LanguageFamily or a VisionFamily, got 3"),
        (
            "from neva_recipes.families.llama import LLAMA",
            "lab = own_b:LLAMA",
            "family lab (own_b:LLAMA): its name is 'llama': expected 'lab'",
        ),
        (
            "from neva_recipes.families.llama import LLAMA",
            "llama = own_c:LLAMA",
            "family llama (own_c:LLAMA): is the name of a built-in family: rename it",
        ),
        (
            "import dataclasses\nfrom neva_recipes.families.llama import LLAMA\n"
            "LAB = dataclasses.replace(LLAMA, name='lab')",
            "lab = own_e:LAB",
            "family lab (own_e:LAB): model_type=llama is that of the built-in family llama",
        ),
        ("import numpie", "lab = own_d:LAB", "No module named 'numpie'"),
    ],
)
def test_what_a_package_offers_wrongly(source, entry_points, message, tmp_path, monkeypatch):
    # Each has a name of its own, since a module stays imported.
    install(tmp_path, re.findall("own_.", entry_points)[0], source, entry_points)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match=re.escape(message)):
        of_family("other")


def test_two_families_of_one_model_type(tmp_path, monkeypatch):
    second = "import lab, dataclasses\nOTHER = dataclasses.replace(lab.LAB, name='other')"
    install(tmp_path)
    install(tmp_path, "third", second, "other = third:OTHER")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match="lab and other of installed packages are both for model_type=seed_oss"):
        of_family("lab")


def test_two_packages_with_one_name(tmp_path, monkeypatch):
    install(tmp_path)
    second = "import lab, dataclasses\nLAB = dataclasses.replace(lab.LAB, model_type='other')"
    install(tmp_path, "second", second, "lab = second:LAB")
    monkeypatch.syspath_prepend(tmp_path)
    message = "model.language.family=lab: several installed packages offer this family: uninstall all but one"
    with pytest.raises(RecipeError, match=message):
        of_family("lab")


def test_a_directory_of_no_family(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(
        CheckpointError, match=f"model_type is mamba: expected {BUILT_IN}, llava, clip, siglip or dinov2"
    ):
        read_configuration(tmp_path)
