"""Validation samples that are training samples too, in files that are no copies: plan and worker tell of them."""

import json
import shutil
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neva_model.data import count_samples
from neva_recipes import gpt, llava
from neva_recipes.config import build, recipe_to_yaml
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.data import record_check
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.trained import same_samples
from neva_recipes.plan.trained.sought_samples import KeyedSample, SoughtSamples
from tests.data.inputs import byte_level_directory, byte_level_tokenizer

__all__ = ["byte_level_directory", "byte_level_tokenizer"]

WORDS = ["red", "blue", "green", "white", "black", "pink", "brown", "grey", "café"]


def write_image(path, number):
    Image.new("RGB", (8, 8), (number, 2 * number, 255 - number)).save(path)


def sample(number):
    turns = [
        {"from": "human", "value": f"<image>\nWhat is number {number}?"},
        {"from": "gpt", "value": f"It is {WORDS[number % 9]}."},
    ]
    return {"id": number, "image": f"{number % 3}.png", "conversations": turns}


def in_messages(record):
    """Return a sample in the other form that is read, with other roles, space and composition of characters."""
    roles = {"human": "user", "gpt": "assistant"}
    turns = [
        {"role": roles[turn["from"]], "content": turn["value"].replace("é", "e\u0301") + " \n"}
        for turn in record["conversations"]
    ]
    return {"messages": turns, "images": [record["image"]]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_image(tmp_path / f"{number}.png", number)
    # A byte behind the end of a picture is not decoded.
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(content + b"0")
    (tmp_path / "copies").mkdir()
    for number in range(3):
        shutil.copy(tmp_path / f"{number}.png", tmp_path / "copies" / f"{number + 5}.png")
    (tmp_path / "copies/other.png").write_bytes(content + b"1")
    write(tmp_path / "train.json", [*(sample(number) for number in range(40)), talk(100, 101, 102)])
    return tmp_path


def write(path, records):
    lines = path.suffix == ".jsonl"
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=1)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def recipe_of(validation, byte_level_directory=None, stage=llava.finetune, training="train.json", *, starts_from=None):
    recipe = stage("tiny")
    recipe.model.language.from_pretrained = starts_from
    recipe.data.data_path, recipe.data.validation_data_path = training, validation
    recipe.data.tokenizer = str(byte_level_directory) if byte_level_directory else None
    recipe.data.global_batch_size = recipe.data.micro_batch_size = 4
    return build(recipe)


def told(recipe):
    found = [finding for finding in check_files(recipe) if finding.code == "validation-is-training"]
    assert all(finding.severity == "warning" for finding in found)
    return [finding.message.partition(":")[0] for finding in found]


def told_by_worker(recipe, tokenizer, tmp_path, capsys):
    capsys.readouterr()
    count_samples(recipe, tokenizer, run_dir=tmp_path / "run")
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]


def talk(*numbers, image="0.png", gives_image=True):
    """Return a conversation of the numbered exchanges."""
    turns = []
    for place, number in enumerate(numbers):
        mark = "<image>\n" if gives_image and not place else ""
        turns.append({"from": "human", "value": f"{mark}And number {number}?"})
        turns.append({"from": "gpt", "value": f"That is {WORDS[number % 9]}."})
    return {"image": image, "conversations": turns} if gives_image else {"conversations": turns}


CASES = {
    "JSON lines": ("v.jsonl", [sample(number) for number in range(40)], "40 of the 40 samples are"),
    "another order": ("v.json", [sample(number) for number in reversed(range(40))], "40 of the 40 samples are"),
    "a part": ("v.json", [sample(number) for number in range(5, 15)], "10 of the 10 samples are"),
    "some": ("v.json", [sample(number) for number in range(28, 48)], "12 of the 20 samples are"),
    "messages": ("v.jsonl", [in_messages(sample(number)) for number in range(8, 10)], "2 of the 2 samples are"),
    "one": ("v.json", [sample(39)], "1 of the 1 sample is a training sample"),
    "others": ("v.json", [sample(number) for number in range(40, 60)], None),
    "images spelled otherwise": (
        "v.json",
        [{**sample(number), "image": f"./{number}.png"} for number in range(3)],
        "3 of the 3 samples are",
    ),
    "images under other names": (
        "v.json",
        [{**sample(number), "image": f"copies/{number + 5}.png"} for number in range(3)],
        "3 of the 3 samples are",
    ),
    "images of the same size": ("v.json", [{**sample(0), "image": "copies/other.png"}], None),
    "first turns": ("v.json", [talk(100), talk(100, 101)], "2 of the 2 samples are"),
    "later turns": ("v.json", [talk(101), talk(102)], "2 of the 2 samples are"),
    "turns from the middle, in another order, or more of them": (
        "v.json",
        [talk(101, 102), talk(101, 100), talk(100, 102), talk(100, 101, 102, 103), talk(100, 100)],
        None,
    ),
    "turns without the image": ("v.json", [talk(100, gives_image=False), talk(101, gives_image=False)], None),
    "turns with another image": ("v.json", [talk(100, image="1.png"), talk(101, image="2.png")], None),
    "other images": ("v.json", [{**sample(number), "image": f"{(number + 1) % 3}.png"} for number in range(9)], None),
}


@pytest.mark.parametrize(("name", "records", "said"), CASES.values(), ids=CASES)
def test_conversations(folder, byte_level_directory, byte_level_tokenizer, name, records, said, capsys):
    recipe = recipe_of(write(folder / name, records), byte_level_directory)
    lines = told(recipe)
    assert [line.startswith(said) for line in lines] == ([] if said is None else [True]), lines
    notes = told_by_worker(recipe, byte_level_tokenizer, folder, capsys)
    said = said and said.replace(" sample", " validation sample", 1)
    assert [line.startswith(f"note: {said}") for line in notes] == ([] if said is None else [True]), notes


def test_the_worker_tells_again_only_what_the_plan_of_its_run_did_not(
    folder, byte_level_directory, byte_level_tokenizer, capsys
):
    recipe = recipe_of(write(folder / "v.json", [sample(number) for number in range(10)]), byte_level_directory)
    (folder / "run").mkdir()
    planned = {"findings": [found.__dict__ for found in check_files(recipe)]}
    (folder / "run" / "plan.json").write_text(json.dumps(planned))
    assert told_by_worker(recipe, byte_level_tokenizer, folder, capsys) == []
    write(folder / "v.json", [sample(number) for number in range(11)])
    (line,) = told_by_worker(recipe, byte_level_tokenizer, folder, capsys)
    assert line.startswith("note: 11 of the 11 validation samples are")
    (folder / "run" / "plan.json").write_text("[]")
    assert len(told_by_worker(recipe, byte_level_tokenizer, folder, capsys)) == 1


def test_images_of_other_folders(folder, byte_level_directory, byte_level_tokenizer, capsys):
    """Names are relative to the folder of each file: a copy of an image is the same, another image is not."""
    recipe = recipe_of(
        write(folder / "other" / "v.json", [sample(number) for number in range(6)]), byte_level_directory
    )
    shutil.copy(folder / "0.png", folder / "other" / "0.png")
    write_image(folder / "other" / "1.png", 17)
    write_image(folder / "other" / "2.png", 18)
    (line,) = told(recipe)
    assert line.startswith("2 of the 6 samples are")
    (line,) = told_by_worker(recipe, byte_level_tokenizer, folder, capsys)
    assert line.startswith("note: 2 of the 6 validation samples are")


def test_images_by_their_whole_path(folder, byte_level_directory, byte_level_tokenizer, capsys):
    """From another folder, the images of the training by their absolute paths."""
    records = [{**sample(number), "image": str(folder / f"{number % 3}.png")} for number in range(6)]
    recipe = recipe_of(write(folder / "other" / "v.json", records), byte_level_directory)
    (line,) = told(recipe)
    assert line.startswith("6 of the 6 samples are")
    (line,) = told_by_worker(recipe, byte_level_tokenizer, folder, capsys)
    assert line.startswith("note: 6 of the 6 validation samples are")


def test_samples_of_earlier_trainings(folder, byte_level_directory, byte_level_tokenizer, capsys):
    """Two runs that weights come from, one of which has its weights from the other."""
    for name, numbers in (("first", range(100, 120)), ("second", range(200, 210))):
        write(folder / f"{name}.json", [sample(number) for number in numbers])
        config = llava.finetune("tiny")
        config.data.data_path = f"{name}.json"
        config.model.language.from_pretrained = "first" if name == "second" else None
        (folder / name).mkdir()
        (folder / name / "recipe.yaml").write_text(recipe_to_yaml(config))
    validation = [sample(number) for number in (0, 1, 2, 110, 111, 205, 300, 301)]
    recipe = recipe_of(write(folder / "v.jsonl", validation), byte_level_directory, starts_from="second")
    found = [finding for finding in check_files(recipe) if finding.code == "validation-is-training"]
    said = [
        ("data.data_path", "3 of the 8 {}samples are training samples too"),
        (
            "model.language.from_pretrained",
            "1 of the 8 {}samples is a training sample of second, which weights come from",
        ),
        (
            "model.language.from_pretrained",
            "2 of the 8 {}samples are training samples of first, which weights come from",
        ),
    ]
    there = ": val_loss says nothing of new data there"
    assert [(list(finding.fields)[1], finding.message.partition(", and the best")[0]) for finding in found] == [
        (field, line.format("") + there) for field, line in said
    ]
    # The first of each, by the list above: 0, 205 and 110, whose pictures are their numbers modulo three.
    named = "name samples that are held out of the training; the first of these has the image "
    assert [finding.advice for finding in found] == [f"{named}{number}.png" for number in (0, 205 % 3, 110 % 3)]
    notes = told_by_worker(recipe, byte_level_tokenizer, folder, capsys)
    assert notes == [f"note: {line.format('validation ')}{there}" for _, line in said]
    # What is gone cannot be compared.
    (folder / "first.json").unlink()
    assert len(told(recipe)) == len(told_by_worker(recipe, byte_level_tokenizer, folder, capsys)) == 2


def test_the_worker_knows_the_images_beside_bad_samples(folder, byte_level_directory, byte_level_tokenizer, capsys):
    """Samples that cannot be read have no keys in the index of a file."""
    bad, other = {"conversations": [], "image": "0.png"}, {**sample(7), "image": "0.png"}
    good = [talk(200, image="1.png"), talk(201, 202), talk(203, image="2.png")]
    training = write(folder / "mixed.json", [good[0], bad, good[1], bad, bad, good[2], other])
    cuts = [talk(202), talk(203, image="1.png"), talk(203, image="0.png"), talk(200, image="1.png")]
    recipe = recipe_of(write(folder / "v.json", cuts), byte_level_directory, training=training)
    recipe = with_values(recipe, {"data.on_bad_sample": "skip"})
    notes = told_by_worker(recipe, byte_level_tokenizer, folder, capsys)
    assert [note.partition(" too:")[0] for note in notes] == [
        "note: 2 of the 4 validation samples are training samples"
    ]


def test_without_time_no_image_is_read(folder, monkeypatch):
    """Samples with images of the same path are found all the same."""
    monkeypatch.setattr(same_samples, "_SECONDS", -1)
    monkeypatch.setattr("neva_recipes.plan.trained._image_files.read_ends", lambda *_: pytest.fail("reads a file"))
    records = [*(sample(number) for number in range(5)), *({**sample(9), "image": "copies/5.png"},) * 5]
    recipe = recipe_of(write(folder / "v.json", records))
    assert told(recipe) == ["at least 5 of the 10 samples are training samples too"]


IMAGES = {
    "a.png": b"one",
    "b.png": b"two",
    "c.png": b"one",
    "d.png": b"three",
    "e.png": b"",
    "f.png": b"",
    "g.png": None,
}


@given(
    sought=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, *IMAGES]))),
    trained=st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.sampled_from([None, *IMAGES]))),
)
def test_samples_are_found_by_words_and_bytes(tmp_path_factory, sought, trained):
    folder = tmp_path_factory.getbasetemp() / "named"
    folder.mkdir(exist_ok=True)
    for name, content in IMAGES.items():
        if content is not None:
            (folder / name).write_bytes(content)
    samples = SoughtSamples(time.monotonic() + 60)
    for key, image in sought:
        samples.add(KeyedSample((key,), image), folder)
    for keys, image in trained:
        samples.look_at(KeyedSample(keys, image and f"../named/{image}"), folder)

    def is_same(one, other):
        return one == other or (None not in (one, other) and bool(IMAGES[one]) and IMAGES[one] == IMAGES[other])

    assert samples.found == {
        number
        for number, (key, image) in enumerate(sought)
        if any(key in keys and is_same(image, other) for keys, other in trained)
    }


TEXT = [f"Number {number} is {WORDS[number % 9]}." for number in range(60)]
TEXTS = {
    "the first lines": ("v.txt", "\n".join(TEXT[:30]), "30 of the 30 texts are training samples"),
    "as JSON lines": ("v.jsonl", "\n".join(json.dumps({"text": text}) for text in TEXT[5:9]), "4 of the 4 texts are"),
    "some": ("v.txt", "\n".join([*TEXT[:5], *(f"{text} Really." for text in TEXT[:15])]), "5 of the 20 texts are"),
    "a line that is written again": ("v.txt", "\n".join([TEXT[0], *(f"{text} Really." for text in TEXT)]), None),
}


@pytest.mark.parametrize(("name", "content", "said"), TEXTS.values(), ids=TEXTS)
def test_texts(folder, byte_level_directory, byte_level_tokenizer, name, content, said, capsys):
    (folder / "train.txt").write_text("\n".join(TEXT))
    (folder / name).write_text(content)
    recipe = recipe_of(str(folder / name), byte_level_directory, gpt.pretrain, "train.txt")
    lines = told(recipe)
    assert [line.startswith(said) for line in lines] == ([] if said is None else [True]), lines
    # The worker tells of every one.
    said = (
        said.replace("texts", "validation texts") if said else "1 of the 61 validation texts is a training sample too"
    )
    (note,) = told_by_worker(recipe, byte_level_tokenizer, folder, capsys)
    assert note.startswith(f"note: {said}")


def test_of_a_large_file_what_was_looked_at_is_told(folder, monkeypatch):
    monkeypatch.setattr(record_check, "_SMALL", 1000)
    monkeypatch.setattr(record_check, "_SECONDS", 0)
    write(folder / "train.json", [sample(number) for number in range(2000)])
    recipe = recipe_of(write(folder / "v.jsonl", [sample(number) for number in range(4)]))
    assert told(recipe) == ["at least 4 of the 4 samples are training samples too"]
    assert told(recipe_of(write(folder / "w.jsonl", [sample(number) for number in range(1990, 2000)]))) == []


def test_a_copy_is_told_once(folder):
    shutil.copy(folder / "train.json", folder / "copy.json")
    assert told(recipe_of(str(folder / "copy.json"))) == ["this is training data, or a copy of it"]
    names = [str(folder / "copy.json"), write(folder / "v.json", [sample(number) for number in range(5)])]
    assert told(recipe_of(names)) == [names[0], "5 of the 5 samples are training samples too"]
