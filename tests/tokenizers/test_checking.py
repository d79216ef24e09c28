"""A check finds the lines that change, the tokens that come of no text, and those that a template does not have."""

import json
import typing

import pytest
import sentencepiece
import tokenizers

from neva_model.tokenizers import load_tokenizer
from neva_recipes.cli.main import main
from neva_recipes.config import ConvTemplate, DataError
from neva_recipes.prompts.templates import get_template
from neva_recipes.tokenizers import add_tokens, check
from tests.tokenizers.hand_made import hand_made_byte_level, hand_made_sentencepiece
from tests.tokenizers.reading import library
from tests.tokenizers.texts import byte_level_directory, english_lines, llama_directory, made_lines

ADDED = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)

UNSEEN = ["  two  spaces ", "tab\tand more", "日本語 and 🙂", "e\u0301 \ufb01"]


def written(path, lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def normalising_model(tmp_path_factory):
    """A Unigram model with SentencePiece's own settings: NFKC, and one space for several."""
    path = tmp_path_factory.mktemp("unigram") / "unigram.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(made_lines("latin", 300)), model_writer=file, vocab_size=100, minloglevel=2
        )
    return path


def test_a_text_that_comes_back(english_model, tmp_path):
    lines = [*english_lines()[:500], *UNSEEN]
    found = check(str(english_model), [written(tmp_path / "text.txt", lines)])
    ids = [one for row in library(english_model).encode(lines) for one in row]
    processor = library(english_model)
    assert (found.lines, found.tokens, found.changed) == (len(lines), len(ids), 0)
    assert (found.unknown, found.partial) == (0, sum(map(processor.is_byte, ids)))
    assert found.is_good and found.size == 700


def test_a_line_that_changes_is_named(normalising_model, tmp_path, capsys):
    text = written(tmp_path / "text.txt", ["abc de", "\ufb01ne  days", "abc"])
    assert main(["tokenizer", "check", str(normalising_model), "--text", str(text)]) == 2
    shown = capsys.readouterr().out
    assert f'  1 of 3 lines changed:\n    {text}:2\n      "\ufb01ne  days"\n   -> "fine days"\n' in shown
    assert main(["tokenizer", "check", str(normalising_model), "--text", str(text), "--format", "json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["first_changed"] == [
        {"path": str(text), "number": 2, "before": "\ufb01ne  days", "after": "fine days"}
    ]


def test_what_has_no_token_is_counted(normalising_model, tmp_path):
    found = check(str(normalising_model), [written(tmp_path / "text.txt", ["αβ δ"])])
    assert found.unknown == 2 and found.changed == 1


def test_pieces_that_come_of_no_text(english_model, tmp_path, capsys):
    pieces = ["bc", "\u2581", "a", "b", "c", "d", "ab", "cd", "abcd"]
    model = hand_made_sentencepiece(tmp_path / "a.model", english_model, pieces)
    text = written(tmp_path / "text.txt", ["abcd"])
    # The base makes a, bc and d of abcd, which no piece joins.
    assert check(str(model), [text]).lost == ("abcd",)
    assert main(["tokenizer", "check", str(model), "--text", str(text)]) == 0
    assert "  1 token of the vocabulary come of no text:\n    abcd\n" in capsys.readouterr().out
    assert check(str(english_model), [text]).lost == ()


def test_byte_level_tokens_that_come_of_no_text(tmp_path):
    folder = hand_made_byte_level(tmp_path / "a", [("b", "c"), ("a", "b"), ("ab", "c"), ("d", "e")], ["<end>"])
    found = check(str(folder), [written(tmp_path / "text.txt", ["abcde"])])
    assert (found.lost, found.tokens) == (("abc",), 3)  # a, bc and de


@pytest.mark.parametrize("template", typing.get_args(ConvTemplate))
@pytest.mark.parametrize("kind", ["llama", "neva", "chatml"])
def test_templates_find_what_the_worker_finds(template, kind, english_model, tmp_path):
    folder = llama_directory(tmp_path / "llama", english_model)
    if kind == "neva":
        add_tokens(str(folder), tmp_path / "neva")
    elif kind == "chatml":
        byte_level_directory(tmp_path / "chatml", english_lines()[:100], 300, ("<|im_start|>", "<|im_end|>"))
    found = check(str(tmp_path / kind), [written(tmp_path / "text.txt", ["text"])], conv_template=template)
    worker = load_tokenizer(str(tmp_path / kind), vocab_size=None)
    missing = []
    for token in get_template(template).special_tokens:
        try:
            worker.special_id(token)
        except DataError:
            missing.append(token)
    assert list(found.split) == missing
    assert all(len(parts) > 1 for parts in found.split.values())


def test_a_template_without_its_tokens_is_exit_code_2(english_model, tmp_path, capsys):
    text = str(written(tmp_path / "text.txt", ["text"]))
    words = ["tokenizer", "check", "--text", text, "--conv-template", "nvgpt"]
    assert main([*words, str(english_model)]) == 2
    assert "<extra_id_0> of nvgpt is no special token, and becomes" in capsys.readouterr().out
    add_tokens(str(english_model), tmp_path / "neva.model")
    assert main([*words, str(tmp_path / "neva.model")]) == 0
    assert "  nvgpt finds its special tokens\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", [None, "None"])
def test_the_word_none_is_a_word(name, tmp_path):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"None": 0, "x": 1}, unk_token=name or "x"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    layout = json.loads(tokenizer.to_str())
    layout["model"] = {"type": "BPE", "vocab": {"None": 0, "x": 1}, "merges": [], "unk_token": name}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(layout | {"added_tokens": [ADDED | {"content": "None", "id": 0}]})
    )
    found = check(str(tmp_path), [written(tmp_path / "text.txt", ["None x"])])
    assert (found.tokens, found.unknown) == (2, 0 if name is None else 1)


def test_a_text_that_becomes_no_tokens(normalising_model, tmp_path, capsys):
    text = written(tmp_path / "text.txt", ["\u200b"])
    assert library(normalising_model).encode("\u200b") == []
    assert main(["tokenizer", "check", str(normalising_model), "--text", str(text)]) == 2
    assert "  the text becomes no tokens\n" in capsys.readouterr().out


def test_what_is_lost_is_not_known_with_ends_of_words(tmp_path):
    folder = hand_made_byte_level(tmp_path / "a", [("b", "c")])
    layout = json.loads((folder / "tokenizer.json").read_text())
    layout["model"] |= {"end_of_word_suffix": "e", "vocab": layout["model"]["vocab"] | {"ce": 6}}
    (folder / "tokenizer.json").write_text(json.dumps(layout))
    assert check(str(folder), [written(tmp_path / "text.txt", ["abc"])]).lost is None


def test_names_with_control_characters_stay_in_their_line(normalising_model, tmp_path, capsys):
    model = tmp_path / "a\nb\x1b.model"
    add_tokens(str(normalising_model), tmp_path / "plain.model")
    (tmp_path / "plain.model").rename(model)
    text = written(tmp_path / "t\nu.txt", ["\ufb01ne"])
    assert main(["tokenizer", "check", str(model), "--text", str(text)]) == 2
    shown = capsys.readouterr().out
    assert "a\\nb\\x1b.model: 108 tokens\n" in shown and "t\\nu.txt:1\n" in shown
    assert main(["tokenizer", "compare", str(model), "--text", str(text)]) == 0
    assert "a\\nb\\x1b.model, 108 tokens\n" in capsys.readouterr().out
    assert main(["tokenizer", "add-tokens", str(model), str(tmp_path / "c\nd"), "--token", "<x>"]) == 0
    assert "c\\nd: 109 tokens" in capsys.readouterr().out


def test_text_that_cannot_be_read(english_model, tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(b"fine\nna\xefve\n")
    assert main(["tokenizer", "check", str(english_model), "--text", str(tmp_path / "a.txt")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/a.txt: line 2 is not UTF-8 text")
