"""`nemo-run data text`, against Megatron's builder, the tokenizers' own libraries, and counting by hand."""

import gzip
import itertools
import json
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import DType

from neva_recipes.cli.main import main
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.sources.indexed import indexed_tokens, token_type
from neva_recipes.token_data import make_token_data
from tests.token_data.reading import documents_of, files_of, ids_of, megatron_files, whole
from tests.tokenizers.hand_made import hand_made_byte_level
from tests.tokenizers.texts import byte_level_directory, english_lines, made_lines

TEXTS = [
    *english_lines()[:60],
    "naïve café 日本語 \U0001f600",
    "a </s> in <|a|> text",
    *made_lines("greek", 20),
]


def json_lines(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def make(files, out, tokenizer, **options):
    return make_token_data(files, out, tokenizer=tokenizer, json_keys=options.pop("json_keys", ["text"]), **options)


def test_bytes_are_those_of_megatrons_builder_with_sentencepiece(pieces, tmp_path):
    source = json_lines(tmp_path / "a.jsonl", TEXTS)
    make([source], tmp_path / "out", pieces, append_eod=True)
    assert files_of(tmp_path / "out") == megatron_files(tmp_path / "theirs", ids_of(pieces, TEXTS, end=[2]), 700)


def test_bytes_are_those_of_megatrons_builder_with_tokenizer_json(byte_level, tmp_path):
    make([json_lines(tmp_path / "a.jsonl", TEXTS)], tmp_path / "out", byte_level)
    assert files_of(tmp_path / "out") == megatron_files(tmp_path / "theirs", ids_of(byte_level, TEXTS), 601)


def test_special_tokens_in_a_text_are_text(byte_level, tmp_path):
    make([json_lines(tmp_path / "a.jsonl", ["a <|endoftext|> b"])], tmp_path / "out", byte_level, append_eod=True)
    (document,) = documents_of(tmp_path / "out")
    assert document[-1] == 600
    assert 600 not in document[:-1]


@pytest.mark.parametrize("size", [1, 65499, 65500, 65536, 100000])
def test_the_type_of_tokens_is_megatrons(size):
    assert token_type(size).code == DType.code_from_dtype(DType.optimal_dtype(size))


def test_tokens_counted_by_hand(tmp_path, capsys):
    # a b -> ab, ab c -> abc. The space has no token, so those of the documents are abc, abc; ab; c, c.
    tokenizer = hand_made_byte_level(tmp_path / "hand", [("a", "b"), ("ab", "c")], ["<end>"])
    configuration = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(configuration))
    (tmp_path / "a.txt").write_text("abc abc\n\nab\n   \nc c\n")
    words = ["data", "text", str(tmp_path / "a.txt"), str(tmp_path / "out"), "--tokenizer", str(tokenizer)]
    assert main([*words, "--append-eod"]) == 0
    shown = capsys.readouterr().out
    assert f"wrote {tmp_path / 'out'}: 3 documents, 8 tokens\n  train  3 documents, 8 tokens\n" in shown
    assert "  5 words, 1.60 tokens each; 1.50 bytes of text a token\n  2 empty, none cut\n" in shown
    assert [len(document) for document in documents_of(tmp_path / "out")] == [3, 2, 3]
    made = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert made["counts"] == {"documents": 3, "empty": 2, "tokens": 8, "words": 5, "bytes": 12}
    assert made["eod"] == documents_of(tmp_path / "out")[0][-1]
    assert indexed_tokens(tmp_path / "out" / "train.idx")[2:5] == (3, 3, 8)


def test_every_form_of_a_text_gives_the_same(pieces, tmp_path, capsys):
    texts = [text for text in TEXTS if "\n" not in text]
    folder = tmp_path / "texts"
    folder.mkdir()
    plain = "".join(f"{text}\r\n" for text in texts).encode("utf-8-sig")
    lines = json_lines(tmp_path / "a.jsonl", texts).read_bytes()
    forms = {"a.txt": plain, "b.txt.gz": gzip.compress(plain), "c.jsonl": lines, "d.JSONL.gz": gzip.compress(lines)}
    for name, content in forms.items():
        (folder / name).write_bytes(content)
    make([folder], tmp_path / "all", pieces)
    assert documents_of(tmp_path / "all") == ids_of(pieces, texts) * 4
    (folder / "notes.md").write_text("notes")
    (folder / ".hidden.txt").write_text("hidden")
    words = ["data", "text", str(folder), str(tmp_path / "again"), "--tokenizer", str(pieces)]
    assert main(words) == 0
    assert "note: " in (said := capsys.readouterr().err)
    assert "1 file of other kinds left out: notes.md" in said
    assert files_of(tmp_path / "again") == files_of(tmp_path / "all")


def test_zstd(pieces, tmp_path):
    zstandard = pytest.importorskip("zstandard")
    lines = json_lines(tmp_path / "a.jsonl", TEXTS).read_bytes()
    compressor = zstandard.ZstdCompressor()
    # Frames behind each other are one content, as with gzip.
    (tmp_path / "b.jsonl.zst").write_bytes(compressor.compress(lines[:999]) + compressor.compress(lines[999:]))
    make([tmp_path / "b.jsonl.zst"], tmp_path / "out", pieces)
    assert documents_of(tmp_path / "out") == ids_of(pieces, TEXTS)
    (tmp_path / "cut.jsonl.zst").write_bytes(compressor.compress(lines)[:-20])
    words = ["data", "text", str(tmp_path / "cut.jsonl.zst"), str(tmp_path / "no"), "--tokenizer", str(pieces)]
    assert main(words) == 2


def test_parquet(pieces, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"number": list(range(len(TEXTS))), "body": TEXTS})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    make([tmp_path / "a.parquet", tmp_path / "b.parquet.gz"], tmp_path / "out", pieces, json_keys=["body"])
    assert documents_of(tmp_path / "out") == ids_of(pieces, TEXTS) * 2


def test_several_fields_are_documents_of_their_own(pieces, tmp_path):
    records = [{"title": "One", "text": "first"}, {"text": "second", "title": "Two", "more": 1}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    make([tmp_path / "a.jsonl"], tmp_path / "out", pieces, json_keys=["title", "text"])
    assert documents_of(tmp_path / "out") == ids_of(pieces, ["One", "first", "Two", "second"])


DOCUMENTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(texts=DOCUMENTS, split=st.sampled_from([(1, 0, 0), (1, 1, 1), (3, 0, 1)]), seed=st.integers(-5, 5))
def test_random_documents(byte_level, tmp_path_factory, texts, split, seed):
    folder = tmp_path_factory.mktemp("random")
    texts = ["a first text", *texts]
    found = make([json_lines(folder / "a.jsonl", texts)], folder / "out", byte_level, split=split, seed=seed)
    parts = [documents_of(folder / "out", part) for part in ("train", "validation", "test")]
    expected = ids_of(byte_level, [text for text in texts if text.strip()])
    # Every document is in one part, and each part has the order of the file.
    assert sorted(itertools.chain(*parts)) == sorted(expected)
    for part in parts:
        places = iter(expected)
        assert all(any(document == other for other in places) for document in part)
    assert found.counts.documents == len(expected)
    assert found.counts.empty == len(texts) - len(expected)
    assert found.counts.tokens == sum(map(len, expected))
    shutil.rmtree(folder)


def test_documents_are_divided_by_their_text(byte_level, tmp_path):
    lines = [*made_lines("latin", 2000, words=2000), *made_lines("latin", 100, words=2000)]  # the last are copies
    source = json_lines(tmp_path / "a.jsonl", lines)
    reversed_source = json_lines(tmp_path / "b.jsonl", lines[::-1])
    parts = {}
    for name, file, seed in (
        ("one", source, 1),
        ("same", source, 1),
        ("back", reversed_source, 1),
        ("other", source, 2),
    ):
        make([file], tmp_path / name, byte_level, split=(80, 10, 10), seed=seed)
        parts[name] = [documents_of(tmp_path / name, part) for part in ("train", "validation", "test")]
    assert whole(tmp_path / "same") == whole(tmp_path / "one")
    assert [sorted(part) for part in parts["back"]] == [sorted(part) for part in parts["one"]]
    assert parts["other"] != parts["one"]
    train, validation, test = ({tuple(document) for document in part} for part in parts["one"])
    assert not train & validation and not train & test and not validation & test
    # Binomial: 2,000 documents of which each falls into validation with 0.1 give 200, with a deviation of 13.4.
    assert abs(len(validation) - 200) < 4 * 13.5
    assert abs(len(test) - 200) < 4 * 13.5


def test_a_part_without_documents_has_no_files(byte_level, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("one document\n")
    words = ["data", "text", str(tmp_path / "a.txt"), str(tmp_path / "out"), "--tokenizer", str(byte_level)]
    assert main([*words, "--split", "1,0.000001"]) == 0
    assert capsys.readouterr().err == (
        f"warning: validation: none of 1 document fell into it, so there is no {tmp_path / 'out'}/validation.idx: "
        "give it a larger weight with --split, or draw anew with --seed\n"
    )
    assert sorted(whole(tmp_path / "out")) == ["tokens.json", "train.bin", "train.idx"]


def test_progress_is_told(byte_level, tmp_path):
    for name in "abcd":
        json_lines(tmp_path / f"{name}.jsonl", [f"{name} {text}" for text in TEXTS])
    told = []
    found = make(sorted(tmp_path.glob("*.jsonl")), tmp_path / "out", byte_level, tell=told.append)
    shares = [progress.share for progress in told]
    assert shares == sorted(shares) and shares[-1] == 1
    assert told[-1].counts == found.counts


def test_the_help_says_what_it_takes(capsys):
    assert main(["help", "data", "text"]) == 0
    shown = capsys.readouterr().out
    assert set(re.findall(r"^  (--\S+)", shown, re.MULTILINE)) == {
        "--tokenizer",
        "--json-keys",
        "--append-eod",
        "--split",
        "--seed",
        "--workers",
    }
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["data"]) == 2
    assert main(["data", "--help"]) == 0


@pytest.mark.parametrize("added", [[], ["<tool>"]])
def test_many_documents_are_encoded_as_each_alone(added, pieces, tmp_path):
    folder = byte_level_directory(tmp_path / "bytes", [*english_lines(), "<s>" * 9], 600, ("<end>",))
    layout = json.loads((folder / "tokenizer.json").read_text())
    # A special token that the vocabulary has too, and one that a text keeps whole.
    known = next(token for token in layout["model"]["vocab"] if len(token) > 2)
    entries = [(known, layout["model"]["vocab"][known], True), *((token, 601, False) for token in added)]
    for content, number, special in entries:
        entry = {"id": number, "content": content, "special": special}
        layout["added_tokens"].append(
            entry | {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        )
    (folder / "tokenizer.json").write_text(json.dumps(layout))
    texts = [*english_lines(), f"a {known} b", "before <tool> and after<tool>", "<tool>", f"{known}<tool>{known}", "a"]
    for tokenizer in (read_tokenizer(folder), read_tokenizer(pieces)):
        assert tokenizer.encode_documents(texts) == [tokenizer.encode_text(text, prefix=True) for text in texts]
