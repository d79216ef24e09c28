"""What tokenizers make of a text, counted by hand and by the libraries."""

import json

import pytest
import sentencepiece
import tokenizers
from transformers import AutoTokenizer

from neva_recipes.cli.main import main
from neva_recipes.config import DataError
from neva_recipes.tokenizers import Cost, add_tokens, check, compare
from tests.tokenizers.reading import library, transformers_ids
from tests.tokenizers.texts import byte_level_directory, english_lines, llama_directory, made_lines

MIXED = "don't go, αβγ 12 δε 日本、カナ क्या x"
"""Two Latin words, two Greek ones, four letters of Han and Kana, one word with marks, one more Latin word."""


@pytest.fixture(scope="module")
def single_bytes(tmp_path_factory):
    """A tokenizer without merges: each byte is a token."""
    return byte_level_directory(tmp_path_factory.mktemp("bytes") / "single", ["a"], 256)


def by_script(found):
    return {costs.script: costs for costs in found.scripts}


def test_each_script_counts_for_itself(single_bytes, tmp_path):
    (tmp_path / "mixed.txt").write_text(MIXED, encoding="utf-8")
    found = by_script(compare([str(single_bytes)], [tmp_path / "mixed.txt"]))
    # 12 is a word that belongs to the letters behind it.
    assert {script: costs.words for script, costs in found.items()} == {
        **{None: 11, "Latin": 3, "Greek": 3, "Han": 2, "Kana": 2, "Devanagari": 1},
    }
    # What is no letter belongs to the letter behind it: a space before each word, the comma before Greek.
    sizes = {
        "Latin": len(b"don't go x"),
        "Greek": len(", αβγ 12 δε".encode()),
        "Han": len(" 日本".encode()),
        "Kana": len("、カナ".encode()),
        "Devanagari": len(" क्या".encode()),
    }
    assert {script: costs.size for script, costs in found.items()} == {None: len(MIXED.encode()), **sizes}
    assert {script: costs.costs[0].tokens for script, costs in found.items()} == {None: len(MIXED.encode()), **sizes}
    assert found["Greek"].costs == (Cost(tokens=16, unknown=0, partial=10),)
    assert found["Latin"].costs == (Cost(tokens=10, unknown=0, partial=0),)


def test_tokens_are_those_of_the_libraries(english_model, tmp_path):
    lines = [*english_lines()[:300], *made_lines("greek", 300)]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"t": line}) for line in lines))
    llama = llama_directory(tmp_path / "llama", english_model)
    qwen = byte_level_directory(tmp_path / "qwen", english_lines(), 600, ("<|end|>",))
    found = compare([str(english_model), str(llama), str(qwen)], [tmp_path / "text.jsonl"], ["t"])
    ids = [library(english_model).encode(lines), transformers_ids(llama, lines), transformers_ids(qwen, lines)]
    assert [cost.tokens for cost in found.scripts[0].costs] == [sum(map(len, rows)) for rows in ids]
    assert found.sizes == (700, 700, 601) and found.lines == 600
    processor = library(english_model)
    assert found.scripts[0].costs[0].partial == sum(processor.is_byte(one) for row in ids[0] for one in row)
    for number in range(3):
        assert sum(costs.costs[number].tokens for costs in found.scripts[1:]) == found.scripts[0].costs[number].tokens
    words = sum(len(line.split()) for line in made_lines("greek", 300))
    assert by_script(found)["Greek"].words == words


def test_unknown_tokens_are_counted(tmp_path):
    with (tmp_path / "unigram.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(made_lines("latin", 300)), model_writer=file, vocab_size=100, minloglevel=2
        )
    (tmp_path / "text.txt").write_text("αβγ δε\n", encoding="utf-8")
    found = compare([str(tmp_path / "unigram.model")], [tmp_path / "text.txt"])
    processor = library(tmp_path / "unigram.model")
    unknown = processor.encode("αβγ δε").count(processor.unk_id())
    assert unknown == 2 and found.scripts[0].costs[0].unknown == 2


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_tokens_count_where_they_stand_if_spaces_are_stripped(kind, tmp_path):
    with (tmp_path / "strips.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*made_lines("latin", 300), *made_lines("greek", 300)]),
            model_writer=file,
            vocab_size=150,
            model_type=kind,
            minloglevel=2,
        )
    # Spaces before a text are no tokens; several stand for one. The ligature and the wide space have more bytes.
    parts = [("greek", "αβγ"), ("latin", "abc"), ("greek", "δε ζη"), ("latin", "xyz abc"), ("greek", "θ")]
    lines = ["   " * 4 + "  ".join(text for _, text in parts), "\u3000" * 9 + "  ".join(text for _, text in parts)]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    found = by_script(compare([str(tmp_path / "strips.model")], [tmp_path / "text.txt"]))
    processor = library(tmp_path / "strips.model")
    greek, latin = (
        2 * sum(len(processor.encode(text)) for script, text in parts if script == name) for name in ("greek", "latin")
    )
    assert {script: costs.costs[0].tokens for script, costs in found.items()} == {
        **{None: greek + latin, "Greek": greek, "Latin": latin},
    }


def test_tokens_that_only_the_configuration_has(tmp_path):
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": False}
    folder = byte_level_directory(
        tmp_path / "qwen",
        english_lines(),
        600,
        ("<|end|>",),
        added_tokens_decoder={
            "601": {"content": "<im>", **flags},
            "602": {"content": "<eats>", **flags, "lstrip": True},
            "603": {"content": "<v>", **flags, "special": True},
        },
        additional_special_tokens=["<u>"],
        pad_token="<pad>",
    )
    lines = ["a<im>b<im>c", "x <eats> y<pad>z<u>", "the <|end|> text<v>"]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    found = compare([str(folder)], [tmp_path / "text.txt"])
    spelling = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    ids = [spelling.encode(line, add_special_tokens=False) for line in lines]
    assert ids[0] == transformers_ids(folder, lines)[0] and len(ids[0]) == 5
    assert 602 in ids[1] and not {600, 603, 604, 605} & {number for row in ids for number in row}
    assert found.scripts[0].costs[0].tokens == sum(map(len, ids))
    assert found.sizes == (606,)


def test_tokens_behind_a_sentencepiece_model_come_back_as_text(english_model, tmp_path):
    flags = {"normalized": False, "special": False}
    folder = llama_directory(
        tmp_path / "llama", english_model, added_tokens_decoder={"702": {"content": "<gauge>", **flags}}
    )
    lines = ["the <gauge>4 <gauge> x", "a</s>b"]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    found = check(str(folder), [tmp_path / "text.txt"])
    assert (found.lines, found.changed) == (2, 0)
    ids = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)(lines, add_special_tokens=False)["input_ids"]
    assert found.tokens == sum(map(len, ids))


def test_the_table(english_model, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(f"{MIXED}\n" * 2000, encoding="utf-8")
    add_tokens(str(english_model), tmp_path / "new.model")
    words = [
        "tokenizer",
        "compare",
        str(english_model),
        str(tmp_path / "new.model"),
        "--text",
        str(tmp_path / "text.txt"),
    ]
    assert main(words) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == [f"1: {english_model}, 700 tokens", f"2: {tmp_path}/new.model, 708 tokens"]
    assert max(map(len, shown[2:])) <= 80
    rows = [line.split() for line in shown if line.startswith("Latin")]
    assert rows[0][:3] == ["Latin", "6,000", "1"]
    assert "Words are letters in Han, Kana, Thai" in " ".join(shown)
    assert main([*words, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    first = document["tokenizers"][0]
    assert (document["schema"], document["lines"], first["vocabulary"]) == (1, 2000, 700)
    assert first["scripts"][0]["script"] is None and first["scripts"][0]["words"] == 22000
    assert first["scripts"][0]["tokens"] == 2000 * len(library(english_model).encode(MIXED))


def test_what_cannot_be_compared(english_model, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("text\n")
    (tmp_path / "bad.model").write_bytes(english_model.read_bytes()[:2001])
    with pytest.raises(DataError, match=r"bad\.model: (is not a SentencePiece model|ends after piece)"):
        compare([str(tmp_path / "bad.model")], [tmp_path / "text.txt"])
    with pytest.raises(DataError, match=r"no\.txt: cannot be read: No such file"):
        compare([str(english_model)], [tmp_path / "no.txt"])
    assert main(["tokenizer", "compare", str(english_model)]) == 2
    assert "--text" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "tokenizer.json").write_text("{")
    assert main(["tokenizer", "compare", str(tmp_path / "folder" / "tokenizer.json"), "--text", "a"]) == 2
    assert "is one file of a tokenizer: name its folder" in capsys.readouterr().err


def test_a_length_that_a_training_has_left_cuts_no_text(tmp_path):
    folder = byte_level_directory(tmp_path / "cut", made_lines("latin", 100), 300)
    (tmp_path / "text.txt").write_text("\n".join(made_lines("latin", 20, 5)))
    whole = compare([str(folder)], [tmp_path / "text.txt"])
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(2)
    backend.enable_padding(length=64)
    backend.save(str(folder / "tokenizer.json"))
    assert compare([str(folder)], [tmp_path / "text.txt"]) == whole
