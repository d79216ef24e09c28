"""The scripts of docs/examples say in one line what they cannot use, and what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
CAPTIONS = "file{0}caption\na.png{0}Ein Mädchen\nb.png{0}Ein Hund\n"
QUESTIONS = "file{0}question{0}answer\nb.png{0}Wo?{0}Draußen\na.png{0}Wer?{0}Eine Köchin\n"


def run(script, *words, options=()):
    """Return the exit status and what a script prints on standard error."""
    words = [sys.executable, *options, str(EXAMPLES / script), *map(str, words)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


def write(folder, delimiter=",", coding="utf-8", captions=CAPTIONS):
    paths = [folder / "captions.csv", folder / "questions.csv"]
    for path, text in zip(paths, (captions, QUESTIONS), strict=True):
        path.write_bytes(text.replace("{0}", delimiter).encode(coding))
    return *paths, folder / "data"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig"])
def test_tables_with_other_delimiters_become_the_same_samples(tmp_path, delimiter, coding):
    assert run("small_data/convert.py", *write(tmp_path, delimiter, coding)) == (0, "")
    (caption,) = json.loads((tmp_path / "data" / "captions.json").read_text("utf-8"))
    assert caption["image"] == "b.png" and caption["conversations"][1] == {"from": "gpt", "value": "Ein Hund"}
    (held_out,) = json.loads((tmp_path / "data" / "held_out.json").read_text("utf-8"))
    assert held_out["image"] == "a.png" and held_out["conversations"][1]["value"] == "Eine Köchin"


@pytest.mark.parametrize(("coding", "name"), [("cp1252", "WINDOWS-1252"), ("utf-16", "UTF-16")])
def test_the_line_about_a_table_that_is_not_utf_8_brings_it_to_be(tmp_path, coding, name):
    captions, questions, target = write(tmp_path, ";", coding)
    status, said = run("small_data/convert.py", captions, questions, target)
    place = questions.read_bytes().index("ß".encode(coding)) if coding == "cp1252" else 0
    assert status == 1 and said.startswith(f"error: {questions}: byte {place} (") and len(said.splitlines()) == 1
    assert f"iconv -f {name} -t UTF-8 {questions} > NEW.csv" in said
    for path in (captions, questions):
        new = subprocess.run(["iconv", "-f", name, "-t", "UTF-8", path], check=True, capture_output=True)
        path.write_bytes(new.stdout)
    assert run("small_data/convert.py", captions, questions, target) == (0, "")
    assert "Draußen" in (target / "text.txt").read_text("utf-8")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_only_the_columns_that_are_not_there_are_called_missing(tmp_path, delimiter):
    first = delimiter.join(("photo", "caption"))
    status, said = run("small_data/convert.py", *write(tmp_path, captions=f"{first}\na.png{delimiter}b\n"))
    told = "captions.csv: no column file: rename those that it has in its first line: "
    assert status == 1 and f"{told}photo, caption\n" in said
    first = delimiter.join(("Datei", "Beschreibung", "description"))
    status, said = run("small_data/convert.py", *write(tmp_path, captions=f"{first}\na.png{delimiter}b\n"))
    told = "captions.csv: no column file, caption: rename those that it has in its first line: "
    assert status == 1 and f"{told}Datei, Beschreibung, description\n" in said


def test_names_are_of_one_file_however_they_are_written(tmp_path):
    captions = CAPTIONS.replace("a.png", "./a.png")
    assert run("small_data/convert.py", *write(tmp_path, captions=captions)) == (0, "")
    (caption,) = json.loads((tmp_path / "data" / "captions.json").read_text("utf-8"))
    assert caption["image"] == "b.png"  # what is told of a.png, which is held out, is in no file


def test_pictures_of_one_table_only_are_counted(tmp_path):
    words = write(tmp_path, captions=f"{CAPTIONS}c.png,A cat\nd.png,A cow\n")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "small_data/convert.py", *words], check=True, capture_output=True, text=True
    )
    assert "note: 2 pictures are in one of the tables only, such as c.png\n" in done.stdout


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("c.png,a red, big dog", "line 4 has more cells than the first line: put a text with ',' in it between quotes"),
        ("c.png", "line 4 has fewer cells than the first line: write the missing ones, or leave the line out"),
    ],
)
def test_a_row_with_other_cells_than_the_first_is_not_cut(tmp_path, row, line):
    status, said = run("small_data/convert.py", *write(tmp_path, captions=f"{CAPTIONS}{row}\n"))
    assert status == 1 and f"captions.csv: {line}" in said


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("small_data/convert.py", ["captions.csv"], "usage: convert.py captions.csv questions.csv FOLDER"),
        ("small_data/convert.py", ["a.csv", "none.csv", "data"], "error: none.csv: No such file or directory"),
        ("small_data/tokenizer.py", [], "usage: tokenizer.py TEXT FOLDER"),
        ("small_data/tokenizer.py", ["none.txt", "{0}/tokens"], "error: none.txt: No such file or directory"),
        ("small_data/tokenizer.py", ["{0}/latin.txt", "{0}/tokens"], "latin.txt: byte 1 is not UTF-8 text"),
        ("digits/prepare.py", [], "usage: prepare.py FOLDER"),
        ("digits/run.py", [], "usage: run.py FOLDER"),
    ],
)
def test_wrong_words_are_told_in_a_line(tmp_path, script, words, said):
    (tmp_path / "latin.txt").write_bytes(b"a\xe9")
    status, told = run(script, *(word.format(tmp_path) for word in words))
    assert status == 1 and said in told and len(told.splitlines()) == 1


@pytest.mark.parametrize("script", ["small_data/tokenizer.py", "digits/prepare.py", "digits/run.py"])
def test_a_package_that_is_not_installed_is_told_in_a_line(script):
    status, told = run(script, options=["-S"])  # without the packages of the environment
    assert status == 1 and told.startswith("error: no package ") and len(told.splitlines()) == 1
