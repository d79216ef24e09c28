"""Files that a field names twice, and samples that are copies of others, bring one warning."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from neva_recipes import gpt, llava
from neva_recipes.config import build
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.data.files import check_files


def sample(number, image="a.png"):
    mark = "" if image is None else "<image>\n"
    turns = [{"from": "human", "value": f"{mark}What is {number}?"}, {"from": "gpt", "value": "A cat."}]
    return {"conversations": turns} | ({} if image is None else {"image": image})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "c/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x89PNG")
    return tmp_path


def write(name, samples):
    Path(name).write_text("".join(f"{json.dumps(each)}\n" for each in samples))


def told(recipe):
    return [finding for finding in check_files(recipe) if finding.code == "samples-repeat"]


def recipe_of(data, validation=None, stage=llava.finetune):
    recipe = stage("tiny")
    recipe.data.data_path, recipe.data.validation_data_path = data, validation
    return build(recipe)


SAMPLES = {
    "one sample again and again": ([sample(0)] * 60, 59),
    "every sample five times": ([sample(number) for number in range(20)] * 5, 80),
    "more than a tenth": ([*(sample(number) for number in range(17)), sample(0), sample(1)], 2),
    "a tenth": ([*(sample(number) for number in range(18)), sample(0), sample(1)], 0),
    "other words": ([sample(number) for number in range(30)], 0),
    "another image": ([sample(0), sample(0, "b.png"), sample(0, "c/a.png"), sample(0, None)], 0),
    "the same image by another path": ([sample(0), sample(0, "c/../a.png")], 1),
    "a single one": ([sample(0)], 0),
}


@pytest.mark.parametrize(("samples", "copies"), SAMPLES.values(), ids=SAMPLES)
def test_samples_that_are_copies(folder, samples, copies):
    write("train.jsonl", samples)
    write("held.jsonl", [sample(-1)])
    findings = told(recipe_of("train.jsonl"))
    assert len(findings) == (copies > 0)
    for finding in findings:
        are = "is a copy of another sample" if copies == 1 else "are copies of other samples"
        assert finding.severity == "warning"
        assert finding.message.startswith(f"{copies} of the {len(samples)} samples {are}, with the same words")
        assert "the first of them has the image " in finding.advice
    in_validation = told(recipe_of("held.jsonl", "train.jsonl"))
    assert [list(finding.fields) for finding in in_validation] == [["data.validation_data_path"]] * (copies > 0)


def test_files_that_are_named_twice(folder):
    write("train.jsonl", [sample(number) for number in range(20)])
    write("more.jsonl", [sample(number) for number in range(20, 50)])
    shutil.copy("train.jsonl", "copy.jsonl")
    for named, rest in (
        (["train.jsonl", "./train.jsonl"], "train.jsonl"),
        (["train.jsonl", "more.jsonl", "copy.jsonl"], ["train.jsonl", "more.jsonl"]),
    ):
        recipe = recipe_of(named)
        (finding,) = told(recipe)
        assert finding.message == f"{named[-1]} is train.jsonl again, or a copy of it: its samples count twice"
        (remedy,) = finding.remedies
        assert remedy == {"data.data_path": rest} and told(with_values(recipe, remedy)) == []
    assert told(recipe_of(["train.jsonl", "more.jsonl"])) == []


def test_a_file_beside_its_compressed_form_or_a_part_of_it(folder):
    write("train.jsonl", [sample(number) for number in range(20)])
    write("part.jsonl", [sample(number) for number in range(5)])
    with gzip.open("train.jsonl.gz", "wb") as file:
        file.write((folder / "train.jsonl").read_bytes())
    for other, copies, total in (("train.jsonl.gz", 20, 40), ("part.jsonl", 5, 25)):
        (finding,) = told(recipe_of(["train.jsonl", other]))
        assert finding.message.startswith(f"{copies} of the {total} samples are copies of other samples")


def test_a_text_named_twice(folder):
    (folder / "text.txt").write_text("A day.\n" * 20)
    assert told(recipe_of("text.txt", stage=gpt.pretrain)) == []
    (finding,) = told(recipe_of("text.txt,./text.txt", stage=gpt.pretrain))
    assert finding.message == "./text.txt is text.txt again, or a copy of it: its samples count twice"
