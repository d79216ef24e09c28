"""Text that cannot be used: one line with the file and the line, exit code 2, and nothing is written."""

import gzip
import json
import os
import resource
import subprocess
import sys

import pytest
import tokenizers

from neva_recipes.cli.main import main
from neva_recipes.config import RunError
from neva_recipes.prompts.tokens.plain_text import PlainTextEncoder
from neva_recipes.token_data import make_token_data

GOOD = b'{"text": "one"}\n{"text": "two"}\n'

FAULTS = {
    "truncated.jsonl.gz": (gzip.compress(GOOD * 99)[:-9], "truncated.jsonl.gz: the compressed file ends too early"),
    "damaged.jsonl.gz": (b"\x1f\x8b\x08\x00" + b"abc" * 20, "damaged.jsonl.gz: the compressed file is damaged"),
    "binary.txt": (b"text\nmore\0text\n", "binary.txt: line 2 holds a zero byte: is it text?"),
    "latin.txt": ("one\nzwei\nfünf\n".encode("latin-1"), "latin.txt: line 3 is not UTF-8 text"),
    "wide.txt": ("text\n".encode("utf-16"), "wide.txt: is not UTF-8 text but UTF-16"),
    "list.jsonl": (GOOD + b'["three"]\n', "list.jsonl: line 3 is not a JSON object"),
    "broken.jsonl": (GOOD + b"\n" + b'{"text": "four\n', "broken.jsonl: line 4 is not valid JSON"),
    "key.jsonl": (GOOD + b'{"txt": "three"}\n', 'key.jsonl: line 3 has no "text" that is a string (--json-keys'),
    "null.jsonl": (GOOD + b'{"text": null}\n', 'null.jsonl: line 3 has no "text" that is a string'),
    "half.jsonl": (GOOD + b'{"text": "\\ud800"}\n', "half.jsonl: line 3 holds '\\ud800', half a surrogate pair"),
    "zero.jsonl": (GOOD + b'{"text": "a\\u0000"}\n', "zero.jsonl: line 3 holds a zero byte"),
    "empty.jsonl": (b"", "empty.jsonl: holds no text: remove it, or name only the others"),
    "blank.txt": (b"\n  \n\n", "blank.txt: holds no text"),
    "array.json": (b'[{"text": "one"}]', "array.json: is JSON, expected text"),
    "archive.txt": (b"PK\x03\x04" + b"a" * 60, "archive.txt: is compressed with zip: unpack it first"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file(name, byte_level, tmp_path, capsys):
    content, message = FAULTS[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("a good line\n" * 99)
    words = ["data", "text", str(tmp_path / "good.txt"), str(tmp_path / name), str(tmp_path / "out")]
    assert main([*words, "--tokenizer", str(byte_level)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert message in said
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["good.txt", name])


@pytest.mark.parametrize("target", [".", "/"])
def test_a_target_that_nothing_can_stand_beside(target, byte_level, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.txt").write_text("a good line\n")
    assert main(["data", "text", "good.txt", target, "--tokenizer", str(byte_level)]) == 2
    assert capsys.readouterr().err == f"error: {target}: exists already; name a folder that does not\n"
    assert [path.name for path in tmp_path.iterdir()] == ["good.txt"]


def test_a_bad_line_that_another_process_meets(byte_level, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(GOOD * 50 + b"3\n" + GOOD)
    words = ["data", "text", str(tmp_path / "a.jsonl"), str(tmp_path / "out"), "--tokenizer", str(byte_level)]
    assert main([*words, "--workers", "2"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'a.jsonl'}: line 101 is not a JSON object\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_parquet_that_cannot_be_used(byte_level, tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def said_of(name):
        words = ["data", "text", str(tmp_path / name), str(tmp_path / "out"), "--tokenizer", str(byte_level)]
        assert main(words) == 2
        return capsys.readouterr().err

    parquet.write_table(pyarrow.table({"a": ["b"], "text": [1]}), tmp_path / "numbers.parquet")
    assert "numbers.parquet: the column 'text' holds int64, expected strings" in said_of("numbers.parquet")
    parquet.write_table(pyarrow.table({"a": ["b"], "c": ["d"]}), tmp_path / "other.parquet")
    assert "other.parquet: has no column 'text', but a, c (--json-keys names others)" in said_of("other.parquet")
    parquet.write_table(pyarrow.table({"text": ["one", None]}), tmp_path / "null.parquet")
    assert 'null.parquet: row 2 has no "text" that is a string' in said_of("null.parquet")
    whole = (tmp_path / "null.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-30])
    assert "cut.parquet: cannot be read as parquet" in said_of("cut.parquet")


@pytest.mark.parametrize(("name", "library"), [("a.jsonl.zst", "zstandard"), ("a.parquet", "pyarrow")])
def test_a_library_that_is_not_there(name, library, byte_level, tmp_path, capsys, monkeypatch):
    (tmp_path / name).write_bytes(b"\x28\xb5\x2f\xfd" * 9)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("neva_recipes.sources._zstd.find_spec", lambda name: None)
    words = ["data", "text", str(tmp_path / name), str(tmp_path / "out"), "--tokenizer", str(byte_level)]
    assert main(words) == 2
    assert "pip install 'neva-recipes[text]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.txt", "out"], "--tokenizer is missing"),
        (["a.txt", "--tokenizer", "T"], "required: OUT"),
        (["a.txt", "out", "--tokenizer", "none.model"], "tokenizer none.model does not exist"),
        (["b.txt", "out", "--tokenizer", "T"], "b.txt: cannot be read: No such file or directory"),
        (["a.txt", "./a.txt", "out", "--tokenizer", "T"], "a.txt: is named twice"),
        (["a.txt", "a.txt/out", "--tokenizer", "T"], "out: cannot be written: Not a directory"),
        (["a.txt", "there", "--tokenizer", "T"], "there: exists already; name a folder that does not"),
        (["there", "out", "--tokenizer", "T"], "there: holds no text files: expected .jsonl, .txt, .parquet"),
        (["a.txt", "out", "--tokenizer", "T", "--split", "0,1"], "--split '0,1': expected one to three weights"),
        (["a.txt", "out", "--tokenizer", "T", "--split", "1,x"], "--split '1,x': expected one to three weights"),
        (["a.txt", "out", "--tokenizer", "T", "--workers", "0"], "workers"),
        (["a.txt", "out", "--tokenizer", "T", "--json-keys", "a,,b"], "--json-keys 'a,,b': a field has no name"),
        (["a.txt", "out", "--tokenizer", "E", "--append-eod"], "names no eos_token, which --append-eod puts"),
    ],
)
def test_words_that_cannot_be_used(words, message, byte_level, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a text\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "endless").mkdir()
    (tmp_path / "endless" / "tokenizer.json").write_bytes((byte_level / "tokenizer.json").read_bytes())
    places = {"T": str(byte_level), "E": "endless"}
    assert main(["data", "text", *(places.get(word, word) for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "endless", "there"]


def compressed_parquet(path):
    """Write a small file that unpacks to a larger one."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"text": ["some words of text"] * 2000})
    parquet.write_table(table, path, compression="none", use_dictionary=False)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert path.stat().st_size < 2000


@pytest.mark.parametrize("name", ["a.txt", "a.parquet"])
def test_a_full_disk(name, byte_level, tmp_path):
    if name == "a.txt":
        (tmp_path / name).write_text("some words of text\n" * 2000)
    else:
        compressed_parquet(tmp_path / name)
    command = [sys.executable, "-m", "neva_recipes.cli.main", "data", "text", name, "out", "--tokenizer"]
    done = subprocess.run(
        [*command, str(byte_level)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # which would be cut too
        # The largest file that a process may write.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert (done.returncode, done.stderr) == (2, "error: out: cannot be written: File too large\n")
    # What was done is kept for the same command, once there is room.
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.unfinished", name]
    subprocess.run([*command, str(byte_level)], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "out"]


def test_two_that_write_the_same(byte_level, tmp_path):
    (tmp_path / "a.txt").write_text("a text\n")
    asked = {"tokenizer": byte_level, "json_keys": ["text"]}
    said = []

    def meet(progress):
        with pytest.raises(RunError) as met:
            make_token_data([tmp_path / "a.txt"], tmp_path / "out", **asked)
        said.append(str(met.value))

    make_token_data([tmp_path / "a.txt"], tmp_path / "out", **asked, tell=meet)
    assert f"{tmp_path / 'out'}: another process is writing it" in said[0]
    assert json.loads((tmp_path / "out" / "tokens.json").read_text())["counts"]["documents"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "out"]


def test_a_text_that_the_tokenizer_cannot_encode_is_named(tmp_path, capsys):
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "one": 1}, unk_token="[other]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    (tmp_path / "T").mkdir()
    backend.save(str(tmp_path / "T" / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("one one\none two\n")
    words = ["data", "text", str(tmp_path / "a.txt"), str(tmp_path / "out"), "--tokenizer", str(tmp_path / "T")]
    assert main(words) == 2
    with pytest.raises(Exception, match="WordLevel error") as caught:
        backend.encode("two")
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'a.txt'}: record 2: the tokenizer cannot encode it: {caught.value}\n"
    )


@pytest.mark.parametrize("fault", [TypeError("own"), KeyError("own"), RecursionError("own")])
@pytest.mark.parametrize("method", ["encode_many", "encode"])
def test_a_fault_of_the_program_is_not_called_one_of_the_tokenizer(method, fault, byte_level, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise fault

    (tmp_path / "a.txt").write_text("a text\n")
    if method == "encode":  # what the library says of several texts leads to each of them

        def refuse(*arguments):
            raise Exception("of the library")

        monkeypatch.setattr(PlainTextEncoder, "encode_many", refuse)
    monkeypatch.setattr(PlainTextEncoder, method, fail)
    with pytest.raises(type(fault), match="own"):
        make_token_data([tmp_path / "a.txt"], tmp_path / "out", tokenizer=byte_level, json_keys=["text"])
