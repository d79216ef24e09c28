"""A missing file is answered with a file of nearly the same spelling, never with one of another purpose."""

from pathlib import Path

import pytest

from neva_recipes.plan.data.near_files import suggest_files

SPELLING = [
    ("chat.json", "chats.jsonl"),
    ("heldout.jsonl", "held out.jsonl"),
    ("Held-Out.jsonl", "held_out.jsonl"),
    ("trian.jsonl", "train.jsonl"),
    ("train.json", "train.jsonl"),
    ("train.jsonl", "train.jsonl.gz"),
    ("train", "train.json"),
    ("validaton.jsonl", "validation.jsonl"),
    ("question.json", "questions.json"),
    ("lalva_v1_5_mix665k.json", "llava_v1_5_mix665k.json"),
    ("conversatons2.json", "conversations2.json"),
    ("tokenizr.model", "tokenizer.model"),
]

ANOTHER = [
    ("val.jsonl", "train.jsonl"),
    ("val.jsonl", "eval.jsonl"),
    ("eval.jsonl", "val.jsonl"),
    ("valset.jsonl", "evalset.jsonl"),
    ("val.jsonl", "valid.jsonl"),
    ("train.jsonl", "pretrain.jsonl"),
    ("test.jsonl", "text.jsonl"),
    ("text.jsonl", "test.jsonl"),
    ("chats.jsonl", "chats questions.jsonl"),
    ("llava-captions.jsonl", "llava-questions.jsonl"),
    ("train.jsonl", "train_val.jsonl"),
    ("data_a.jsonl", "data_b.jsonl"),
    ("part1.jsonl", "part2.jsonl"),
    ("mix655k.json", "mix665k.json"),
    ("chats.train", "chats.val"),
    ("cats.json", "dogs.json"),
    ("a cat.json", "a bat.json"),
    ("...", "-"),
]


@pytest.mark.parametrize(("typed", "there"), SPELLING)
def test_a_matter_of_spelling(typed, there, tmp_path):
    (tmp_path / there).touch()
    shown = f"'{tmp_path / there}'" if " " in there else str(tmp_path / there)
    assert suggest_files(str(tmp_path / typed)) == f" (did you mean {shown}?)"
    assert suggest_files(str(tmp_path / typed), [str(tmp_path / there)]) == ""


@pytest.mark.parametrize(("typed", "there"), ANOTHER)
def test_another_file(typed, there, tmp_path):
    (tmp_path / there).touch()
    assert suggest_files(str(tmp_path / typed)) == ""


@pytest.mark.parametrize(
    ("typed", "there", "is_meant"),
    [("image", "images", True), ("llama.chat", "llama.base", False), ("llama.caht", "llama.chat", True)],
)
def test_folders_have_no_endings(typed, there, is_meant, tmp_path):
    (tmp_path / there).mkdir()
    assert bool(suggest_files(str(tmp_path / typed))) == is_meant
    assert suggest_files(str(tmp_path / typed), only_files=True) == ""


def test_the_nearest_two_are_named_the_nearest_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("chat.txt", "chats.jsonl", "chats.json", "other.json"):
        (tmp_path / name).touch()
    assert suggest_files("chat.json") == " (did you mean chats.json, chats.jsonl?)"


def test_only_files_of_near_names_are_looked_at(tmp_path, monkeypatch):
    for name in ("train.jsonl", "trains", *(f"picture {number}.png" for number in range(20))):
        (tmp_path / name).touch()
    looked_at, look = set(), Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: looked_at.add(path.name) or look(path, **how))
    assert suggest_files(str(tmp_path / "trian.jsonl"), only_files=True) == f" (did you mean {tmp_path}/train.jsonl?)"
    assert "train.jsonl" in looked_at and looked_at <= {"train.jsonl", "trains"}


def test_what_cannot_be_looked_at_may_be_meant(tmp_path, monkeypatch):
    """A folder without search permission can be listed, and nothing in it can be looked at."""
    (tmp_path / "images").touch()

    def refuse(path, **how):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert suggest_files(str(tmp_path / "image"), only_files=True) == f" (did you mean {tmp_path}/images?)"
