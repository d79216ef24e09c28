"""Files that weights were trained on in the runs they come from, where a run validates or is evaluated on them."""

import json

import pytest

from neva_recipes import llava
from neva_recipes.config import Recipe, build, recipe_to_yaml
from neva_recipes.plan import Planner
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.data.files import FileRules, check_files
from neva_recipes.plan.trained.same_files import trained_files
from neva_recipes.plan.trained.trainings import recipes_of_run
from neva_recipes.storage.exports import TrainedWith, write_digests

FILES = ("captions", "chats", "more", "held")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    for count, name in enumerate(FILES, start=5):
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": f"A cat of {name}."}]
        record = {"image": "a.png", "conversations": turns}
        (tmp_path / f"{name}.json").write_text(json.dumps([record] * count))
    (tmp_path / "copy.json").write_bytes((tmp_path / "captions.json").read_bytes())
    return tmp_path


def recipe_of(data, *, validation=None, frozen=("vision",), **sources):
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.validation_data_path = f"{data}.json", validation
    for part in ("language", "vision", "projector"):
        getattr(recipe.model, part).freeze = part in frozen
        getattr(recipe.model, part).from_pretrained = sources.get(part)
    return recipe


def write_run(folder, name, *recipes):
    """Write the recipes that a run has had, the last one is the present one."""
    (folder / name / "checkpoints/step-00000005").mkdir(parents=True)
    for number, recipe in enumerate(recipes, start=1):
        file = "recipe.yaml" if number == len(recipes) else f"recipe.{number}.yaml"
        (folder / name / file).write_text(recipe_to_yaml(recipe))
    (folder / name / "checkpoints/step-00000005/recipe.yaml").write_text(recipe_to_yaml(recipes[-1]))


def told(recipe, rules=None):
    built = recipe if isinstance(recipe, Recipe) else build(recipe)
    found = check_files(built) if rules is None else rules.check(built)
    return [finding for finding in found if finding.code == "validation-is-training"]


SAID = ": val_loss says nothing of new data, and the best checkpoint would be chosen on what was trained on"


@pytest.mark.parametrize("source", ["first", "first/checkpoints/step-00000005"])
def test_validation_on_what_an_earlier_stage_trained_on(folder, source):
    write_run(folder, "first", recipe_of("captions", frozen=("language", "vision")))
    recipe = recipe_of("chats", validation=["held.json", "copy.json"], projector=source, language=source)
    (finding,) = told(recipe)
    assert (
        finding.message
        == f"copy.json: this is training data of {source}, which weights come from, or a copy of it{SAID}"
    )
    assert finding.fields == {
        "data.validation_data_path": ["held.json", "copy.json"],
        "model.projector.from_pretrained": source,
    }
    (remedy,) = finding.remedies
    assert remedy == {"data.validation_data_path": ["held.json"]}
    assert told(with_values(build(recipe), remedy)) == []


def test_each_training_is_told_and_one_remedy_mends_all(folder):
    write_run(folder, "first", recipe_of("captions"))
    files = ["captions.json", "chats.json", "held.json"]
    findings = told(recipe_of("chats", validation=files, language="first"))
    assert [list(finding.fields)[1] for finding in findings] == ["data.data_path", "model.language.from_pretrained"]
    assert [finding.message.partition(":")[0] for finding in findings] == ["chats.json", "captions.json"]
    assert {str(remedy) for finding in findings for remedy in finding.remedies} == {
        "{'data.validation_data_path': ['held.json']}"
    }


@pytest.mark.parametrize(
    ("part", "frozen_later", "is_told"),
    [("language", (), True), ("language", ("language",), True), ("vision", ("vision",), False)],
)
def test_what_a_run_has_frozen_it_has_from_another(folder, part, frozen_later, is_told):
    write_run(folder, "first", recipe_of("captions", frozen=("vision",)))
    write_run(folder, "second", recipe_of("more", frozen=("vision", *frozen_later), **{part: "first"}))
    third = {"frozen": ("vision", "projector"), part: "second"}
    assert bool(told(recipe_of("chats", validation="captions.json", **third))) is is_told
    # Frozen in the second run, the part has learned nothing of its data.
    assert bool(told(recipe_of("chats", validation="more.json", **third))) is (part not in ("vision", *frozen_later))


def test_a_resumed_run_was_trained_on_all_its_files(folder):
    write_run(folder, "first", recipe_of("captions", language="zeroth"), recipe_of("more"))
    write_run(folder, "zeroth", recipe_of("held", language="first"))  # runs that name each other
    for name, is_told in (("captions", True), ("more", True), ("held", True), ("chats", False)):
        recipe = recipe_of("a", validation=f"{name}.json", language="first")
        assert bool(told(recipe)) is is_told
    (finding,) = told(recipe_of("a", validation="captions.json,more.json,chats.json", language="first"))
    assert finding.message.startswith("captions.json, more.json: ")
    names = ["chats.json", "copy.json", "held.json", "more.json"]
    recipes = recipes_of_run("first/checkpoints/step-00000005")
    assert trained_files(recipes, names) == ["copy.json", "held.json", "more.json"]


def test_an_export_stands_for_its_run(folder):
    write_run(folder, "first", recipe_of("captions"))
    (folder / "export").mkdir()
    write_digests(folder / "export", folder / "first/checkpoints/step-00000005", TrainedWith("v1"))
    (finding,) = told(recipe_of("chats", validation="copy.json", language="export"))
    assert "this is training data of export," in finding.message
    assert trained_files(recipes_of_run("export"), ["copy.json", "held.json"]) == ["copy.json"]
    assert Planner().trained_files("export", ["copy.json", "held.json"]) == ["copy.json"]
    (folder / "first").rename(folder / "moved")
    assert recipes_of_run("export") == []


def test_what_tells_nothing_is_passed_over(folder):
    write_run(folder, "first", recipe_of("captions"))
    (folder / "first/recipe.yaml").write_text("name: [")
    (folder / "weights").mkdir()
    for source in ("first", "weights", "nowhere", "owner/name", "a.png"):
        assert recipes_of_run(source) == []
        assert told(recipe_of("chats", validation="captions.json", language=source)) == []


def test_runs_that_are_still_to_be_made(folder):
    rules, planner = FileRules(), Planner()
    for each in (rules, planner):
        each.expect("runs/p/first", build(recipe_of("captions")))
        each.expect("runs/p/second", build(recipe_of("chats", language="runs/p/first")))
    (finding,) = told(recipe_of("more", validation="copy.json", language="runs/p/second"), rules)
    assert "training data of runs/p/first," in finding.message
    assert planner.trained_files("runs/p/second", ["copy.json", "chats.json", "held.json"]) == [
        "copy.json",
        "chats.json",
    ]
    assert planner.trained_files("runs/p/first", ["copy.json", "chats.json"]) == ["copy.json"]
