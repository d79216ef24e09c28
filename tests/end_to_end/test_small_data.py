"""Every command of docs/small_data.md, run in its order in a folder of pictures and two tables."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import executors
from neva_recipes.config import load_recipe
from tests.end_to_end.world import COLORS, nemo_run

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = re.findall(r"^    \$ (.*)$", (DOCS / "small_data.md").read_text(encoding="utf-8"), re.MULTILINE)

SHORTER = {
    "gpt.pretrain": ["data.sequence_length=64", "trainer.max_steps=2", "model.language.num_layers=1"],
    "llava.pretrain": ["trainer.max_steps=2", "model.language.num_layers=1", "model.vision.num_layers=2"],
    "llava.finetune": [
        *("trainer.max_steps=2", "trainer.val_check_interval=1"),
        *("model.language.num_layers=1", "model.vision.num_layers=2"),
    ],
}
"""What makes a training of the page one of seconds; the last of two values for a field counts."""


@pytest.fixture
def folder(tmp_path):
    """What the page starts from."""
    (tmp_path / "pictures").mkdir()
    shutil.copytree(DOCS / "examples" / "small_data", tmp_path / "small_data")
    captions, questions = [("file", "caption")], [("file", "question", "answer")]
    for number in range(24):
        color = list(COLORS)[number % len(COLORS)]
        name = f"{number}, {color}.png"
        Image.new("RGB", (40 + number, 56), COLORS[color]).save(tmp_path / "pictures" / name)
        captions.append((name, f'a "{color}" picture'))
        questions += [(name, "Which colour is this?", color), (name, "Is it red?", "yes" if color == "red" else "no")]
    for name, rows in (("captions.csv", captions), ("questions.csv", questions)):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return tmp_path


def run(command, folder):
    """Run a command of the page, a training for a few steps only."""
    program, *words = shlex.split(command.replace("PICTURE", "'3, black.png'"))
    if program == "python":
        subprocess.run([sys.executable, *words], cwd=folder, check=True)
        return ""
    assert program == "nemo-run"
    is_training = words[0] in SHORTER and "size=tiny" in words
    done = nemo_run(*words, *(SHORTER[words[0]] if is_training else ()), cwd=folder)
    return done.stdout


@pytest.mark.slow
def test_the_page_works_from_begin_to_end(folder):
    said = {command: run(command, folder) for command in COMMANDS}

    pieces = {sample["image"] for sample in json.loads((folder / "data" / "questions.json").read_text())}
    held_out = json.loads((folder / "data" / "held_out.json").read_text())
    assert len(pieces) == 21 and len(held_out) == 6
    assert pieces.isdisjoint(sample["image"] for sample in held_out)

    runs = {found.record()["name"]: found for found in executors.list_runs(folder / "runs")}
    assert set(runs) == set(SHORTER)
    recipes = {name: load_recipe(found.path / "recipe.yaml") for name, found in runs.items()}
    sizes = {recipe.model.language.vocab_size for recipe in recipes.values()}
    assert len(sizes) == 1 and 256 < sizes.pop() < 2000
    assert {recipe.data.tokenizer for recipe in recipes.values()} == {str(folder / "data" / "tokenizer")}
    projector = recipes["llava.finetune"].model.projector
    assert projector.from_pretrained == str(runs["llava.pretrain"].path)
    assert [runs[name].saved_plan()["findings"] for name in ("llava.pretrain", "llava.finetune")] == [[], []]

    (status,) = [text for command, text in said.items() if command == "nemo-run status"]
    assert "3 runs: 3 succeeded" in status
    (fit,) = [text for command, text in said.items() if command.startswith("nemo-run fit")]
    assert "The fastest, to be pasted" in fit
    (evaluated,) = [text for command, text in said.items() if command.startswith("nemo-run evaluate")]
    (total,) = [line.split() for line in evaluated.splitlines() if line.startswith("all ")]
    assert total[2] == "6"
    assert (folder / "exported" / "config.json").is_file()


def test_what_is_held_out_is_in_no_file_to_train_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    captions = [f"{number:02}.png,Caption {number:02}.\n" for number in (*range(24), 0)]  # one picture has two
    Path("captions.csv").write_text("".join(["file,caption\n", *captions]))
    rows = [f"{number:02}.png,Question {number:02}?,Answer {number:02}.\n" for number in range(24)]
    Path("questions.csv").write_text("".join(["file,question,answer\n", *rows]))
    script = DOCS / "examples" / "small_data" / "convert.py"
    subprocess.run([sys.executable, script, "captions.csv", "questions.csv", "data"], check=True)
    held_out = {sample["image"].removesuffix(".png") for sample in json.loads(Path("data/held_out.json").read_text())}
    assert held_out == {"00", "10", "20"}
    trained = {f"{number:02}" for number in range(24)} - held_out
    files = {
        "text.txt": ("Caption", "Question", "Answer"),
        "questions.json": ("Question", "Answer"),
        "captions.json": ("Caption",),
    }
    for name, kinds in files.items():
        text = Path("data", name).read_text()
        for words in kinds:
            assert set(re.findall(rf"{words} (\d\d)", text)) == trained
        if name != "text.txt":
            assert {sample["image"].removesuffix(".png") for sample in json.loads(text)} == trained


def test_every_kind_of_step_is_on_the_page():
    """What the long test runs is what a reader needs."""
    steps = {command.removeprefix("nemo-run ").split()[0] for command in COMMANDS if command.startswith("nemo-run")}
    assert steps == {*SHORTER, "fit", "status", "evaluate", "chat", "export"}
    assert sum(command.startswith("python small_data/") for command in COMMANDS) == 2
