"""What cannot be checked is refused in one line with exit code 2, before anything is written."""

import gzip
import json
import os
import resource
import subprocess
import sys

import pytest

from neva_recipes.cli.main import main
from tests.data_tools.samples import sample

GOOD = json.dumps(sample())

FAULTS = {
    "empty.json": (b"", "is empty"),
    "blank.jsonl": (b" \n\n", "is empty"),
    "none.json": (b"[]", "has no samples"),
    "binary.json": (b"\x7fELF\0\0\0" * 99, "is not text, but binary"),
    "wide.json": (f"[{GOOD}]".encode("utf-16"), "is not UTF-8 text but UTF-16"),
    "latin.json": (b'[{"id": "\xe9"}]', "not UTF-8 text"),
    "text.json": (b"What is this?", "expected a JSON array of samples"),
    "table.csv": (b"question,answer\n1,2\n", "a table is not read as it is"),
    "object.json": (b'{"a": 1}', "expected a JSON array of samples"),
    "numbers.json": (b"[1, 2]", "expected a sample beginning with {"),
    "cut.json": (f"[{GOOD}, {GOOD[:-9]}".encode(), "after 1 sample, at byte"),
    "list.jsonl": (f"{GOOD}\n[1]\n".encode(), "line 2 is not a JSON object"),
    "cut.json.gz": (gzip.compress(f"[{GOOD}]".encode() * 50)[:-9], "the compressed file ends too early"),
    "damaged.json.gz": (b"\x1f\x8b\x08\x00" + b"abc" * 20, "the compressed file is damaged"),
    "archive.json": (b"PK\x03\x04" + b"a" * 60, "is compressed with zip"),
    "pointer.json": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_is_none(name, tmp_path, capsys):
    content, message = FAULTS[name]
    (tmp_path / name).write_bytes(content)
    assert main(["data", "check", str(tmp_path / name), "--html", str(tmp_path / "a.html")]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith(f"error: {tmp_path / name}: ") and told.err.count("\n") == 1
    assert message in told.err
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: FILE"),
        (["none.json"], "none.json: cannot be read: No such file or directory"),
        (["folder"], "folder: is a folder, expected a data file"),
        (["pipe.json"], "pipe.json: is no file, expected a data file"),
        (["/dev/null"], "/dev/null: is no file, expected a data file"),
        (["a.json", "a.json"], "a file is named twice"),
        (["a.json", "--image-folder", "none"], "--image-folder none: does not exist"),
        (["a.json", "--image-folder", "a.json"], "--image-folder a.json: is no folder"),
        (["a.json", "--images"], "--images: name the folder of the images with --image-folder"),
        (["a.json", "--fix"], "--fix: name the folder of the images with --image-folder"),
        (["a.json", "--html", "there.html"], "there.html: exists already"),
        (["a.json", "--png", "there.html/a.png"], "there.html/a.png: cannot be written"),
        (["a.json", "--png", "b", "--html", "b"], "b: is named twice as an output"),
        (["a.json", "--image-folder", "folder", "--fix"], "a.fixed.json: exists already"),
        (["a.json", "--sequence-length", "0"], "sequence-length"),
        (["a.json", "--template", "v2"], "template"),
        (["a.json", "--tokenizer", "none.model"], "tokenizer none.model does not exist"),
        (["a.json", "--tokenizer", "folder"], "folder"),
    ],
)
def test_words_that_cannot_be_used(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "a.fixed.json", "there.html"):
        (tmp_path / name).write_text(f"[{GOOD}]")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    assert main(["data", "check", *words]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and told.out == ""
    there = ["a.fixed.json", "a.json", "folder", "pipe.json", "there.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_a_template_whose_tokens_are_not_there(tmp_path, capsys):
    from tests.tokenizers.texts import byte_level_directory, english_lines

    tokenizer = byte_level_directory(tmp_path / "T", english_lines()[:50], 400, ("<|e|>",), eos_token="<|e|>")
    (tmp_path / "a.json").write_text(f"[{GOOD}]")
    assert main(["data", "check", str(tmp_path / "a.json"), "--tokenizer", str(tokenizer)]) == 2
    assert "has no special token <s>" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path, capsys):
    (tmp_path / "a.json").write_text(f"[{GOOD}]")
    (tmp_path / "a.json").chmod(0)
    assert main(["data", "check", str(tmp_path / "a.json")]) == 2
    assert "a.json: cannot be read: Permission denied" in capsys.readouterr().err


def test_a_disk_that_is_full(tmp_path):
    (tmp_path / "a.json").write_text(f"[{GOOD}]")
    done = subprocess.run(
        [sys.executable, "-m", "neva_recipes", "data", "check", "a.json", "--html", "a.html"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)),
    )
    assert done.returncode == 2 and "a.html: cannot be written: File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_library_that_is_not_there(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.json").write_text(f"[{GOOD}]")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["data", "check", str(tmp_path / "a.json"), "--png", str(tmp_path / "a.png")]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "--png needs Matplotlib: pip install 'neva-recipes[plot]'" in told.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
