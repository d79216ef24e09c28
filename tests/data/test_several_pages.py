"""Files of several pages or frames are seen as Pillow sees them; plan and worker tell of them, and of float pixels."""

import json
import random
import shutil

import pytest
from PIL import Image, PngImagePlugin, features

from neva_model.data import get_template
from neva_model.data.images.reading import read_image
from neva_model.data.index import BAD, FINE, SampleIndex, SampleRules
from neva_recipes import llava
from neva_recipes.config import DataError, build
from neva_recipes.plan import plan
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.serialization import plan_to_json
from neva_recipes.prompts.pictures import look_into

COLOURS = ["red", "green", "blue"]

ENDINGS = ["gif", "tiff", "png", "webp", *(["avif"] if features.check("avif") else [])]


def write_frames(path, count):
    frames = [Image.new("RGB", (40, 20), colour) for colour in COLOURS[:count]]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("ending", ENDINGS)
def test_several_frames_are_seen_where_pillow_sees_them(tmp_path, ending, count):
    path = write_frames(tmp_path / f"a.{ending}", count)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == count
    look = look_into(path)
    assert look.has_several == (count > 1) and look.problem is None
    red, green, blue = read_image(path).getpixel((10, 10))
    assert red > 200 and max(green, blue) < 60


def test_frames_behind_a_large_colour_profile_are_seen(tmp_path):
    frames = [Image.new("RGB", (40, 20), colour) for colour in COLOURS]
    profile = random.Random(0).randbytes(20000)
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], icc_profile=profile)
    with Image.open(tmp_path / "a.png") as image:
        assert image.n_frames == 3
    assert look_into(tmp_path / "a.png").has_several
    note = PngImagePlugin.PngInfo()
    note.add_text("note", "acTL\0\0\0\3")
    frames[0].save(tmp_path / "b.png", pnginfo=note)
    assert not look_into(tmp_path / "b.png").has_several


def test_a_still_picture_that_speaks_of_frames_has_one(tmp_path):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "loop.gif", loop=0)
    parts = [Image.new("RGB", (40, 20), colour) for colour in COLOURS[:2]]
    parts[0].save(tmp_path / "camera.mpo", save_all=True, append_images=parts[1:])
    (tmp_path / "camera.mpo").rename(tmp_path / "camera.png")  # so that it is looked into
    for name in ("loop.gif", "camera.png"):
        assert not look_into(tmp_path / name).has_several


@pytest.fixture
def told(tmp_path, capsys):
    """Return what plan and worker say of the images of a folder: findings by code, lines, and states of samples."""

    def tell():
        names = sorted(path.name for path in tmp_path.iterdir() if path.is_file() and path.suffix != ".json")
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
        data = tmp_path / "data.json"
        data.write_text(json.dumps([{"image": name, "conversations": turns} for name in names]))
        recipe = llava.finetune("tiny")
        recipe.data.data_path = str(data)
        findings = {finding.code: finding for finding in check_files(build(recipe))}
        index = SampleIndex(data, tmp_path / "cache", SampleRules(get_template("v1"), tmp_path))
        return findings, capsys.readouterr().out, list(index.states)

    return tell


def test_plan_and_index_count_files_of_several_frames(told, tmp_path):
    for number, count in enumerate([1, 3, 3]):
        write_frames(tmp_path / f"{number}.{ENDINGS[number]}", count)
    findings, lines, states = told()
    said = "2 of 3 images looked at have several pages or frames, of which the first is used"
    assert findings["images-several"].severity == "warning"
    assert findings["images-several"].message.startswith(said) and said in lines
    assert findings["images-several"].advice.startswith("the first that was met is 1.")
    assert states == [FINE] * 3


def test_the_index_tells_again_only_what_the_plan_of_its_run_did_not(tmp_path, capsys):
    pictures, run = tmp_path / "pictures", tmp_path / "run"
    pictures.mkdir()
    run.mkdir()
    data = pictures / "data.json"

    def notes(*names):
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
        data.write_text(json.dumps([{"image": name, "conversations": turns} for name in names]))
        SampleIndex(data, run / "data_cache", SampleRules(get_template("v1"), pictures))
        return capsys.readouterr().out.count("several pages or frames")

    for name in ("a.gif", "b.gif"):
        write_frames(pictures / name, 3)
    assert notes("a.gif") == 1
    shutil.rmtree(run / "data_cache")
    recipe = llava.finetune("tiny")
    recipe.data.data_path = str(data)
    (run / "plan.json").write_text(plan_to_json(plan(recipe)))
    assert notes("a.gif") == 0
    assert notes("a.gif", "b.gif") == 1


def test_one_frame_each_brings_no_word(told, tmp_path):
    for ending in ENDINGS:
        write_frames(tmp_path / f"a.{ending}", 1)
    findings, lines, _ = told()
    assert "images-several" not in findings and "frames" not in lines


def test_floating_point_pixels_are_told_by_the_plan_as_by_the_launch(told, tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    Image.new("F", (40, 20), 0.5).save(tmp_path / "b.tiff")
    (tmp_path / "c.pfm").write_bytes(b"Pf\n2 1\n-1.0\n" + bytes(8))
    said = "has floating-point pixels, which have no fixed range"
    findings, _, states = told()
    assert f"2 of the images looked at cannot be used, the first is b.tiff (sample 1): it {said}" in (
        findings["image-unusable"].message
    )
    assert states == [FINE, BAD, BAD]
    for name in ("b.tiff", "c.pfm"):
        with pytest.raises(DataError, match=f"{name} {said}"):
            read_image(tmp_path / name)
