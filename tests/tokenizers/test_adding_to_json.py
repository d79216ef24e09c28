"""Tokens added to a directory with a tokenizer.json are those that transformers adds, and move no other token."""

import json

import pytest
import tokenizers
from transformers import AutoTokenizer

from neva_model.tokenizers import load_tokenizer
from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError, DataError
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.tokenizers import add_tokens
from tests.tokenizers.reading import transformers_ids
from tests.tokenizers.texts import byte_level_directory, english_lines

NEW = ["<gauge>", "</gauge>"]

FLAGS = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)


def qwen(folder, **configuration):
    return byte_level_directory(folder, english_lines(), 600, ("<|end|>",), **configuration)


def word_piece(folder):
    vocabulary = {token: number for number, token in enumerate(["[UNK]", "[PAD]", *"gauge4", "##a"])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


DECLARED = {"added_tokens_decoder": {"601": {"content": "<im>", **FLAGS, "special": True}}}


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize(
    "make",
    [qwen, word_piece, lambda folder: qwen(folder, pad_token="<pad>"), lambda folder: qwen(folder, **DECLARED)],
    ids=["byte-level", "WordPiece", "token named only", "token declared only"],
)
def test_ids_are_those_of_transformers(make, control, tmp_path):
    folder = make(tmp_path / "base")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(b"weights of the old size")
    theirs = AutoTokenizer.from_pretrained(folder)
    before = theirs.get_vocab()
    theirs.add_tokens([tokenizers.AddedToken(token, normalized=False, special=control) for token in NEW])
    found = add_tokens(str(folder), tmp_path / "new", NEW, control=control)
    ours = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert ours.get_vocab() == theirs.get_vocab() == before | found.added
    assert (found.size, found.present, found.is_sentencepiece) == (max(ours.get_vocab().values()) + 1, {}, False)
    lines = ["<gauge>4</gauge>", "a <gauge> x<gauge><gauge>", *english_lines()[:200]]
    assert transformers_ids(tmp_path / "new", lines) == [
        theirs.encode(line, add_special_tokens=False) for line in lines
    ]
    assert [ours.decode([number], skip_special_tokens=True) for number in found.added.values()] == (
        ["", ""] if control else NEW
    )
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    }
    old, new = (json.loads((place / "tokenizer.json").read_text()) for place in (folder, tmp_path / "new"))
    assert {**old, "added_tokens": []} == {**new, "added_tokens": []}


@pytest.mark.parametrize("control", [False, True])
def test_training_and_plan_keep_them_whole_unless_they_are_special(control, tmp_path):
    found = add_tokens(str(qwen(tmp_path / "base")), tmp_path / "new", NEW, control=control)
    for tokenizer in (load_tokenizer(str(tmp_path / "new"), vocab_size=None), read_tokenizer(tmp_path / "new")):
        assert {token: tokenizer.special_id(token) for token in NEW} == found.added
        ids = tokenizer.encode_text("a <gauge>4</gauge>")
        assert [number in ids for number in found.added.values()] == [not control] * 2


def test_a_token_that_is_there(tmp_path, capsys):
    add_tokens(str(qwen(tmp_path / "base")), tmp_path / "one", ["<gauge>"])
    words = ["tokenizer", "add-tokens", str(tmp_path / "one"), str(tmp_path / "two"), "--token", "<b>", "--token"]
    assert main([*words, "<gauge>"]) == 0
    assert capsys.readouterr().out == (
        f"wrote {tmp_path}/two: 603 tokens, of which 1 are new\n      602  <b>\n      601  <gauge> (there already)\n"
    )
    for token, control, kind in (
        ("<gauge>", True, "non-special token 601"),
        ("<|end|>", False, "special token 600"),
        ("a", False, "normal token 64"),
    ):
        with pytest.raises(DataError, match=rf"is there already, as {kind}: choose another token"):
            add_tokens(str(tmp_path / "one"), tmp_path / "three", [token], control=control)
    with pytest.raises(CheckpointError, match=r"two: exists already; name a directory that does not"):
        add_tokens(str(tmp_path / "base"), tmp_path / "two")
    assert not (tmp_path / "three").exists()


def test_a_configuration_that_lists_its_tokens_lists_the_new_ones(tmp_path):
    add_tokens(str(qwen(tmp_path / "base", **DECLARED)), tmp_path / "new", NEW)
    listed = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert {number: entry["content"] for number, entry in listed.items()} == {
        "601": "<im>",
        "602": "<gauge>",
        "603": "</gauge>",
    }


def test_merge_tells_which_tokens_of_the_new_one_are_special(tmp_path, capsys):
    """What it says to do with them works."""
    base = qwen(tmp_path / "base")
    add_tokens(str(base), tmp_path / "one", ["<gauge>"])
    add_tokens(str(tmp_path / "one"), tmp_path / "new", ["<ctl>"], control=True)
    assert main(["tokenizer", "merge", str(base), str(tmp_path / "new"), str(tmp_path / "merged")]) == 0
    assert (
        "  1 special tokens of NEW are not taken (nemo-run tokenizer add-tokens --control adds them):\n    <ctl>\n"
        "  1 tokens of NEW that texts keep whole are not taken (nemo-run tokenizer add-tokens adds them):\n"
        "    <gauge>\n" in capsys.readouterr().out
    )
    words = ["tokenizer", "add-tokens", str(tmp_path / "merged"), str(tmp_path / "both"), "--token", "<gauge>"]
    assert main(words) == 0
