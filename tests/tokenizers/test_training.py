"""Trained tokenizers are those that the worker takes, the same for the same text; other text is refused in one line."""

import gzip
import json
import os
import subprocess
import time

import pytest

from neva_model.tokenizers import load_tokenizer
from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError, DataError
from neva_recipes.tokenizers import merge, train
from tests.cli.command import NEMO_RUN
from tests.tokenizers.reading import library, proto, transformers_ids
from tests.tokenizers.texts import english_lines, llama_directory, made_lines

KINDS = ["sentencepiece", "byte-level"]

UNSEEN = ["  two  spaces ", "tab\tand more", "日本語 and 🙂", "1234 567", "e\u0301 \ufb01 \uff21"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join([*english_lines(), *made_lines("devanagari", 500)]) + "\n", encoding="utf-8")
    return path


def test_a_sentencepiece_model_is_what_the_worker_takes(text, tmp_path):
    path = tmp_path / "new.model"
    assert train([text], path, vocab_size=1500) == len(english_lines()) + 500
    tokenizer = load_tokenizer(str(path), vocab_size=1500)
    assert tokenizer.vocab_size == 1500
    processor = library(path)
    lines = [*english_lines()[:500], *made_lines("devanagari", 500)]
    assert transformers_ids(llama_directory(tmp_path / "directory", path), lines) == processor.encode(lines)
    for line in [*lines, *UNSEEN]:
        ids = processor.encode(line)
        assert processor.unk_id() not in ids and processor.decode(ids) == line
    # Digits stand alone, as in Llama 2.
    pieces = [piece.piece.strip("\u2581") for piece in proto(path).pieces]
    assert not [
        piece for piece in pieces if len(piece) > 1 and any(letter.isdigit() for letter in piece) and piece[0] != "<"
    ]
    assert [piece.piece for piece in proto(path).pieces[:4]] == ["<unk>", "<s>", "</s>", "<0x00>"]


def test_a_byte_level_tokenizer_is_what_the_worker_takes(text, tmp_path):
    train([text], tmp_path / "new", vocab_size=1200, kind="byte-level")
    tokenizer = load_tokenizer(str(tmp_path / "new"), vocab_size=1200)
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.special_id("<|endoftext|>")) == (1200, 1199, 1199)
    for line in [*english_lines()[:500], *made_lines("devanagari", 200), *UNSEEN]:
        assert tokenizer.decode(tokenizer.encode_text(line)) == line
    assert tokenizer.pieces(tokenizer.encode_text("1234")) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_text_gives_the_same_bytes(kind, text, tmp_path):
    found = []
    for seed in ("1", "2"):
        target = tmp_path / seed
        words = ["tokenizer", "train", text, target, "--vocab-size", "900", "--kind", kind]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed}
        subprocess.run([NEMO_RUN, *words], check=True, env=environment, capture_output=True)
        files = sorted(target.iterdir()) if target.is_dir() else [target]
        found.append([file.read_bytes() for file in files])
    assert found[0] == found[1]


def test_jsonl_and_compressed_files_are_text_too(tmp_path):
    lines = made_lines("cyrillic", 400)
    (tmp_path / "plain.txt").write_text("\n".join(lines))
    with gzip.open(tmp_path / "packed.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    records = [{"title": one, "body": other} for one, other in zip(lines[::2], lines[1::2], strict=True)]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "documents.jsonl").write_text(json.dumps({"text": "\n".join(lines)}) + "\n")
    assert train([tmp_path / "plain.txt"], tmp_path / "plain.model", vocab_size=400) == 400
    words = ["tokenizer", "train", "--vocab-size", "400"]
    assert main([*words, str(tmp_path / "packed.txt.gz"), str(tmp_path / "packed.model")]) == 0
    keys = ["--json-keys", "title,body"]
    assert main([*words, *keys, str(tmp_path / "records.jsonl"), str(tmp_path / "records.model")]) == 0
    assert main([*words, str(tmp_path / "documents.jsonl"), str(tmp_path / "documents.model")]) == 0
    assert len({path.read_bytes() for path in tmp_path.glob("*.model")}) == 1


def test_long_lines_are_trained_on_whole(tmp_path):
    (tmp_path / "short.txt").write_text("\n".join(made_lines("greek", 2000)))
    (tmp_path / "long.txt").write_text(" ".join(made_lines("greek", 2000)))
    (tmp_path / "no-spaces.txt").write_text("".join(made_lines("latin", 4000)).replace(" ", ""))
    for name in ("short", "long", "no-spaces"):
        train([tmp_path / f"{name}.txt"], tmp_path / f"{name}.model", vocab_size=500)
    text = made_lines("greek", 300)
    short, long = (sum(map(len, library(tmp_path / f"{name}.model").encode(text))) for name in ("short", "long"))
    assert abs(short - long) < 0.02 * short


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"", r"a\.txt: holds no text"),
        ("a.txt", b" \n\n\t\n", r"a\.txt: holds no text"),
        ("a.txt", b"fine\nna\xefve\n", r"a\.txt: line 2 is not UTF-8 text"),
        ("a.bin", b"fine\n\x00\x01\x02\n", r"a\.bin: line 2 holds a zero byte: is it text\?"),
        ("a.txt", "fine".encode("utf-16"), r"a\.txt: is not UTF-8 text but UTF-16"),
        ("a.gz", gzip.compress(b"fine\n" * 500)[:-9], r"a\.gz: the compressed file ends too early"),
        ("a.zst", b"\x28\xb5\x2f\xfd rest", r"a\.zst: .*zstd"),
        ("a.jsonl", b'{"text": "fine"}\n{"txt": 1}\n', r'a\.jsonl: document 2 has no "text" that is a string'),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r'a\.jsonl: document 1: "text" holds half a surrogate pair'),
        ("a.jsonl", b'{"text": "fine"\n', r"a\.jsonl: line 1 is not valid JSON"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_text_that_cannot_be_used_is_one_line(kind, name, content, problem, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        train([tmp_path / name], tmp_path / "new", vocab_size=400, kind=kind)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_for_fewer_tokens_says_for_how_many(kind, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(made_lines("greek", 50)))
    with pytest.raises(DataError, match=r"the text gives at most ([\d,]+) tokens, not 50,000: take more") as found:
        train([tmp_path / "a.txt"], tmp_path / "new", vocab_size=50000, kind=kind)
    most = int(str(found.value).split()[5].replace(",", ""))
    with pytest.raises(DataError, match=rf"at most {most:,} tokens, not {most + 1:,}"):
        train([tmp_path / "a.txt"], tmp_path / "new", vocab_size=most + 1, kind=kind)
    train([tmp_path / "a.txt"], tmp_path / "new", vocab_size=most, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 200, 256])
def test_a_vocabulary_that_is_too_small(kind, size, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(made_lines("greek", 50)))
    least = {"sentencepiece": r"<unk>, <s>, </s> alone are 259", "byte-level": r"<\|endoftext\|> alone are 257"}[kind]
    with pytest.raises(DataError, match=f"^a vocabulary of {size} is too small: the bytes and {least}$"):
        train([tmp_path / "a.txt"], tmp_path / "new", vocab_size=size, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [2**20 + 1, 2**32, 10**20])
def test_a_vocabulary_that_is_too_large(kind, size, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(made_lines("greek", 50)))
    with pytest.raises(DataError, match=rf"^a vocabulary of {size:,} is too large: expected at most 1,048,576$"):
        train([tmp_path / "a.txt"], tmp_path / "new", vocab_size=size, kind=kind)


def test_one_long_word_takes_no_time(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 10**6)
    begin = time.process_time()
    train([tmp_path / "a.txt"], tmp_path / "new", vocab_size=260, kind="byte-level")
    assert time.process_time() - begin < 10
    merges = json.loads((tmp_path / "new" / "tokenizer.json").read_text())["model"]["merges"]
    assert merges == [["x", "x"], ["xx", "xx"], ["xxxx", "xxxx"]]


def test_a_long_line_gives_the_words_of_short_ones(tmp_path):
    (tmp_path / "short.txt").write_text("\n".join(f" {line}" for line in made_lines("greek", 2000)))
    (tmp_path / "long.txt").write_text("".join(f" {line}" for line in made_lines("greek", 2000)))
    for name in ("short", "long"):
        train([tmp_path / f"{name}.txt"], tmp_path / name, vocab_size=500, kind="byte-level")
    assert (tmp_path / "short" / "tokenizer.json").read_bytes() == (tmp_path / "long" / "tokenizer.json").read_bytes()


def test_what_exists_is_left_alone(text, tmp_path, capsys):
    (tmp_path / "new").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        train([text], tmp_path / "new", vocab_size=400)
    assert main(["tokenizer", "train", str(text), str(tmp_path / "other")]) == 2
    assert "--vocab-size is missing" in capsys.readouterr().err
    assert main(["tokenizer", "train", str(text), str(tmp_path / "other"), "--vocab-size", "0"]) == 2
    assert (tmp_path / "new").read_text() == "mine" and not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_can_be_merged(kind, text, tmp_path):
    (tmp_path / "greek.txt").write_text("\n".join(made_lines("greek", 500)))
    train([text], tmp_path / "base", vocab_size=900, kind=kind)
    train([tmp_path / "greek.txt"], tmp_path / "new", vocab_size=600, kind=kind)
    found = merge(str(tmp_path / "base"), str(tmp_path / "new"), tmp_path / "both", old_text=text)
    assert found.old_text.changed == 0 and not found.tokens.differences and found.tokens.base_size == 900
    tokenizer = load_tokenizer(str(tmp_path / "both"), vocab_size=None)
    assert tokenizer.vocab_size == found.tokens.size
