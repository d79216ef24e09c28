"""Images that are there under another name, or that no file can be: plan and worker say what the name is."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from neva_model.data import count_samples
from neva_recipes import llava
from neva_recipes.config import DataError, build
from neva_recipes.plan.data.files import check_files
from neva_recipes.prompts.missing_pictures import lost_image, missing_file

COMPOSED, DECOMPOSED = "caf\u00e9.png", "cafe\u0301.png"

CASES = {
    "ending in capitals": ("0.PNG", "0.png", "there is '0.png', and small letters are not capital ones"),
    "folder in capitals": ("Sub/0.png", "sub/0.png", "there is 'sub/0.png', and small letters"),
    "decomposed": (DECOMPOSED, COMPOSED, "there is a file of that name, but its letters with accents are written"),
    "composed": (COMPOSED, DECOMPOSED, "there is a file of that name, but its letters with accents are written"),
    "decomposed capitals": (DECOMPOSED.upper(), COMPOSED, f"there is '{COMPOSED}', and small letters"),
    "backslash": ("sub\\0.png", "sub/0.png", "folders are parted by / in a name, not by \\, and 'sub/0.png' is there"),
    "drive": ("C:\\pictures\\0.png", "0.png", "take C:\\pictures\\ out of such names, and write / in them"),
    "absolute": (
        "/home/otto/plants/0.png",
        "0.png",
        "it is absolute, and '0.png' is in ",
    ),
    "absolute, with a folder": (
        "/home/otto/plants/sub/0.png",
        "sub/0.png",
        "; take /home/otto/plants/ out of such names (sed -i 's|\"/home/otto/plants/|\"|g' FILE)",
    ),
    "absolute, and nowhere": (
        "/home/otto/plants/1.png",
        "0.png",
        "it is absolute, and data.image_folder does not count for it; take /home/otto/plants/ out of such names (sed",
    ),
    "file URL": ("file:///home/0.png", "0.png", "it is a URL; take file:// out of such names"),
    "URL": ("https://example.org/0.png", "0.png", "it is a URL, and nothing is downloaded; download such images"),
    "itself": ("data:image/png;base64," + "QUJD" * 2000, "0.png", "it is the image itself, not the name of a file"),
    "folder": ("sub", "sub/0.png", "it is a folder; name the image file"),
    "another": ("1.png", "0.png", None),
}


@pytest.mark.parametrize(("name", "there", "reason"), CASES.values(), ids=CASES)
def test_what_is_wrong_with_a_name(name, there, reason, tmp_path, byte_level_directory, byte_level_tokenizer):
    file = tmp_path / "images" / there
    file.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(file)
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    (tmp_path / "train.json").write_text(json.dumps([{"image": name, "conversations": turns}] * 4))
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.image_folder = str(tmp_path / "train.json"), str(file.parent)
    if there.startswith("sub/"):
        recipe.data.image_folder = str(file.parent.parent)
    recipe.data.tokenizer = str(byte_level_directory)
    built = build(recipe)
    (line,) = [finding.line() for finding in check_files(built) if finding.code == "image-missing"]
    with pytest.raises(DataError) as raised:
        count_samples(built, byte_level_tokenizer, run_dir=tmp_path / "run")
    for text in (line, str(raised.value)):
        assert len(text) < 8000
        if reason is None:
            assert "there is" not in text and "data.image_folder" in text
        else:
            assert reason in text and "relative to" not in text, text


WRONG_FOLDERS = {
    "relative to the folder above": ("named/0.png", "named/0.png", "named"),
    "relative to two above": ("a/named/0.png", "a/named/0.png", "a/named"),
    "in a folder of it": ("0.png", "the pictures/0.png", "."),
    "in a folder of the folder of the data": ("0.png", "pictures/0.png", None),
}


@pytest.mark.parametrize("is_relative", [False, True], ids=["absolute", "relative"])
@pytest.mark.parametrize(("name", "there", "folder"), WRONG_FOLDERS.values(), ids=WRONG_FOLDERS)
def test_the_folder_that_the_images_are_in_is_named(
    name, there, folder, is_relative, tmp_path, monkeypatch, byte_level_directory, byte_level_tokenizer
):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        file = tmp_path / there.replace("0", str(number))
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    (tmp_path / "empty").mkdir()
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    samples = [{"image": name.replace("0", str(number)), "conversations": turns} for number in range(3)]
    (tmp_path / "train.json").write_text(json.dumps(samples))
    recipe = llava.finetune("tiny")
    recipe.data.data_path = "train.json" if is_relative else str(tmp_path / "train.json")
    if folder is not None:
        recipe.data.image_folder = folder if is_relative else str(tmp_path / folder)
    recipe.data.tokenizer = str(byte_level_directory)
    (line,) = [finding.line() for finding in check_files(build(recipe)) if finding.code == "image-missing"]
    with pytest.raises(DataError, match=r"; set data\.image_folder=") as raised:
        count_samples(build(recipe), byte_level_tokenizer, run_dir=tmp_path / "run")
    # What both say is true.
    for text in (line, str(raised.value)):
        (_, given) = re.search(
            r"it is in (.+?)[;:,] set data\.image_folder=(.+?) if the others are there too", text
        ).groups()
        (recipe.data.image_folder,) = shlex.split(given)
        assert Path(recipe.data.image_folder).is_absolute() is not is_relative
        assert not [finding for finding in check_files(build(recipe)) if finding.code == "image-missing"]
    assert count_samples(build(recipe), byte_level_tokenizer, run_dir=tmp_path / "run").usable == 3


@pytest.mark.parametrize(
    ("role", "image_folder", "remedy"),
    [
        ("validation", "train_pics", "write names into v.json that are absolute or relative to train_pics"),
        ("training", "train_pics", "write names into v.json that are absolute or relative to train_pics"),
        ("validation", None, "write names into v.json that are absolute or relative to valpics"),
        ("alone", "train_pics", "set data.image_folder=valpics if the others are there too"),
    ],
)
def test_a_change_that_would_lose_the_images_of_another_file_is_not_offered(
    role, image_folder, remedy, tmp_path, monkeypatch
):
    """The images of one file are in the folder, those of the other beside it, or nowhere if no folder is named."""
    monkeypatch.chdir(tmp_path)
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    for picture in ("train_pics/a.png", "valpics/b.png" if image_folder else "b.png"):
        Path(picture).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(picture)
    Path("valpics").mkdir(exist_ok=True)
    train = Path("train.json") if image_folder else Path("train_pics/train.json")
    train.write_text(json.dumps([{"image": "a.png", "conversations": turns}]))
    Path("valpics/v.json").write_text(json.dumps([{"image": "b.png", "conversations": turns}]))
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.image_folder = str(train), image_folder
    recipe.data.tokenizer = "owner/tokens"
    if role == "validation":
        recipe.data.validation_data_path = "valpics/v.json"
    else:
        recipe.data.data_path = ["valpics/v.json"] + [str(train)] * (role == "training")

    def missing():
        return [finding.line() for finding in check_files(build(recipe)) if finding.code == "image-missing"]

    (line,) = missing()
    place = "valpics" if image_folder else "."
    assert f"it is in {place}" in line and remedy in line, line
    if role != "alone":
        assert "set data.image_folder" not in line
        # What it advises is right.
        name = os.path.relpath("valpics/b.png" if image_folder else "b.png", image_folder or "valpics")
        Path("valpics/v.json").write_text(json.dumps([{"image": name, "conversations": turns}]))
        assert missing() == []


def test_a_file_that_differs_in_its_letters_alone_is_named(tmp_path, monkeypatch):
    (tmp_path / "Photos").mkdir()
    (tmp_path / "Photos" / "a.JPG").touch()
    monkeypatch.chdir(tmp_path)
    assert missing_file(Path("Photos/a.JPG")) is None
    there = repr(str(tmp_path / "Photos" / "a.JPG"))
    for name in ("photos/a.jpg", "Photos/a.jpg", str(tmp_path / "photos" / "A.JPG")):
        assert missing_file(Path(name)) == (
            f"image file {name} does not exist: there is {there}, and small letters are not capital ones"
        )
    assert missing_file(Path("Photos/b.jpg")) == "image file Photos/b.jpg does not exist"


def test_a_folder_is_listed_once_for_all_of_its_missing_images(tmp_path, monkeypatch):
    for number in range(9):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/A.png").touch()
    listed, scandir = [], os.scandir
    monkeypatch.setattr("os.scandir", lambda folder: listed.append(str(folder)) or scandir(folder))
    for place in range(90):
        lost = lost_image(tmp_path, f"{place % 9}/{'a' if place < 9 else 'b'}.png", "data.image_folder")
        assert (lost is None) == (place >= 9)
    assert [listed.count(str(tmp_path / f"{number}")) for number in range(9)] == [1] * 9
    # One that has changed since is listed again.
    (tmp_path / "3/B.png").touch()
    os.utime(tmp_path / "3", (1, 1))
    assert "'3/B.png'" in lost_image(tmp_path, "3/b.png", "data.image_folder").reason


ABSOLUTE = ["/home/otto/my plants/a/0.png", "/home/otto/my plants/b/1.png", "/home/otto/my plants/2.png"]


@pytest.mark.parametrize(
    "there", [(), ("images",), (".",), ("images/now",)], ids=["nowhere", "in it", "beside the data", "below it"]
)
@pytest.mark.parametrize("indent", [None, 1])
def test_what_is_said_of_the_names_of_another_machine_helps(tmp_path, monkeypatch, there, indent):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    samples = [
        {
            "image": [name] if number else name,
            "conversations": [
                {"from": "human", "value": f"<image>\n{number}?"},
                {"from": "gpt", "value": f"Cat {name}"},
            ],
        }
        for number, name in enumerate(ABSOLUTE)
    ]
    Path("train.json").write_text(json.dumps(samples, indent=indent))
    for place in there:
        for name in ("a/0.png", "b/1.png", "2.png"):
            (Path(place) / name).parent.mkdir(exist_ok=True, parents=True)
            Image.new("RGB", (8, 8)).save(Path(place) / name)
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.image_folder, recipe.data.tokenizer = "train.json", "images", "owner/tokens"
    (line,) = [finding.line() for finding in check_files(build(recipe)) if finding.code == "image-missing"]
    assert "take /home/otto/my plants/ out of such names" in line
    (command,) = re.findall(r"\((sed .* FILE)\)", line)
    subprocess.run(shlex.split(command.replace("FILE", "train.json")), check=True)
    if folder := re.search(r"set data\.image_folder=(\S+)", line):
        recipe.data.image_folder = folder[1].rstrip(",")
    assert [sample["image"] for sample in json.loads(Path("train.json").read_text())] == [
        "a/0.png",
        ["b/1.png"],
        ["2.png"],
    ]
    missing = [finding for finding in check_files(build(recipe)) if finding.code == "image-missing"]
    assert bool(missing) == (not there)


def test_names_of_several_machines_have_no_begin_in_common(tmp_path):
    lost = lost_image(tmp_path, "/home/otto/0.png", "data.image_folder", None, ["/mnt/0.png", "b.png"])
    assert lost.remedy == "take the folders of another machine out of such names: the rest is looked for there"


@pytest.mark.parametrize("validation", [None, "b.json"])
def test_a_folder_that_no_image_is_in_is_told_where_all_names_are_absolute(tmp_path, monkeypatch, validation):
    monkeypatch.chdir(tmp_path)
    for name in ("images/0.png", "others/0.png"):
        Path(name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(name)

    def told(*names):
        for file, name in zip(("a.json", "b.json"), names, strict=False):
            turns = [{"from": "human", "value": f"<image>\n{file}?"}, {"from": "gpt", "value": f"A {file}."}]
            Path(file).write_text(json.dumps([{"image": str(name), "conversations": turns}]))
        recipe = llava.finetune("tiny")
        recipe.data.data_path, recipe.data.image_folder, recipe.data.tokenizer = "a.json", "images", "owner/tokens"
        recipe.data.validation_data_path = validation
        return [finding.line() for finding in check_files(build(recipe)) if finding.code == "image-folder-unused"]

    elsewhere, inside = tmp_path / "others/0.png", tmp_path / "images/0.png"
    (line,) = told(elsewhere, elsewhere)
    assert "data.image_folder=images: is not used: every image looked for is elsewhere" in line
    assert f"the first is {elsewhere}; leave it out" in line
    assert told(inside, inside) == [] == told("0.png", "0.png")
    assert bool(told(elsewhere, inside)) == (validation is None)
