"""Validation files that are trained on, and samples without an image for a model that sees."""

import json

import pytest

from neva_recipes import llava
from neva_recipes.config import build
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.trained.same_files import trained_files

TURNS = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]


def write(path, count, **fields):
    path.write_text(json.dumps([{"id": f"{n}.png", "conversations": TURNS, **fields} for n in range(count)]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    for name, count in (("train.json", 40), ("more.json", 30), ("held.json", 20)):
        write(tmp_path / name, count, image="a.png")
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace('"What?"', '"<image>\\nWhat?"'))
    held = (tmp_path / "held.json").read_text()
    (tmp_path / "held.json").write_text(held.replace("A cat.", "A bird."))
    (tmp_path / "copy.json").write_bytes((tmp_path / "train.json").read_bytes())
    (tmp_path / "link.json").symlink_to("train.json")
    (tmp_path / "other.json").write_text((tmp_path / "train.json").read_text().replace("A cat.", "A dog."))
    return tmp_path


def recipe_of(data, validation=None, stage=llava.finetune):
    recipe = stage("tiny")
    recipe.data.data_path, recipe.data.validation_data_path = data, validation
    return build(recipe)


def found(recipe, code):
    return [finding for finding in check_files(recipe) if finding.code == code]


@pytest.mark.parametrize(
    ("training", "validation", "remedies"),
    [
        ("train.json", "held.json", None),
        ("train.json", "other.json", None),
        ("train.json", "missing.json", None),
        ("train.json", "train.json", [None]),
        ("train.json", "./more/../link.json", None),
        ("train.json", "link.json", [None]),
        ("more.json,train.json", "copy.json", [None]),
        ("train.json", ["held.json", "link.json"], [["held.json"]]),
        (["train.json", "more.json"], ["more.json", "held.json", "copy.json"], [["held.json"]]),
    ],
)
def test_validation_on_training_data(folder, training, validation, remedies):
    recipe = recipe_of(training, validation)
    findings = found(recipe, "validation-is-training")
    if remedies is None:
        assert findings == []
        return
    (finding,) = findings
    assert finding.severity == "warning"
    assert [value for remedy in finding.remedies for value in remedy.values()] == remedies
    for remedy in finding.remedies:
        assert found(with_values(recipe, remedy), "validation-is-training") == []


def test_files_a_run_was_trained_on(folder):
    recipe = recipe_of("train.json,missing.json")
    names = ["held.json", "copy.json", str(folder / "train.json"), "missing.json", "other.json"]
    assert trained_files([recipe], names) == ["copy.json", str(folder / "train.json")]


def no_images(recipe):
    return [finding.line() for finding in found(recipe, "no-images")]


def test_samples_without_an_image(folder):
    assert no_images(recipe_of("train.json")) == []
    write(folder / "text.json", 7, picture="cat.JPG", source="web")
    (line,) = no_images(recipe_of("text.json"))
    assert line == (
        "data.data_path=text.json: none of the 7 samples has an image, which is read from the field image of a sample: "
        "the projector learns nothing; call the field image: picture holds the name of one"
    )
    (line,) = no_images(recipe_of("train.json,text.json"))
    assert "7 of the " in line and line.endswith(
        " samples name an image, but not in the field image: they are trained without it; "
        "call the field image: picture holds the name of one"
    )
    write(folder / "one.json", 1, picture="cat.JPG")
    (line,) = no_images(recipe_of("train.json,one.json"))
    assert "1 of the 41 samples names an image, but not in the field image: it is trained without it;" in line
    write(folder / "bare.json", 1)
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.model.vision.freeze = "bare.json", False
    (line,) = no_images(build(recipe))
    assert "the one sample has no image" in line and line.endswith("the vision tower and the projector learn nothing")


def test_captions_without_an_image(folder):
    """The template of captions takes no other sample; the field is named there too."""
    write(folder / "captions.json", 7, photos=["a/cat.webp"])
    recipe = recipe_of("captions.json", None, llava.pretrain)
    assert no_images(recipe) == []
    (finding,) = found(recipe, "bad-sample")
    assert "(photos holds the name of an image file: call that field image)" in finding.line()
