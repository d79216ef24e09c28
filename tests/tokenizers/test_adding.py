"""Tokens added to a SentencePiece model are read whole by the library and by transformers, and move no other piece."""

import json
import pickle

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError, DataError
from neva_recipes.tokenizers import EXTRA_TOKENS, add_tokens, check, compare, merge
from tests.tokenizers.reading import library, proto, transformers_ids
from tests.tokenizers.texts import english_lines, llama_directory, made_lines, train_model


def test_other_pieces_and_the_normaliser_stay(english_model, tmp_path):
    found = add_tokens(str(english_model), tmp_path / "new.model")
    old, new = proto(english_model), proto(tmp_path / "new.model")
    assert [piece.SerializeToString() for piece in new.pieces[: len(old.pieces)]] == [
        piece.SerializeToString() for piece in old.pieces
    ]
    assert new.normalizer_spec == old.normalizer_spec and new.trainer_spec == old.trainer_spec
    assert [(piece.piece, piece.type) for piece in new.pieces[len(old.pieces) :]] == [
        (f"<extra_id_{number}>", sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED) for number in range(8)
    ]
    assert found.added == {f"<extra_id_{number}>": len(old.pieces) + number for number in range(8)}
    assert (found.size, found.present, found.unreachable) == (len(old.pieces) + 8, {}, ())
    lines = english_lines()[:1000]
    assert library(tmp_path / "new.model").encode(lines) == library(english_model).encode(lines)


def test_both_libraries_keep_a_user_defined_token_whole(english_model, tmp_path):
    folder = llama_directory(tmp_path / "base", english_model, chat_template="{{ messages }}")
    (folder / "model.safetensors").write_bytes(b"weights of the old size")
    add_tokens(str(folder), tmp_path / "new", ["<extra_id_0>", "<image_here>"])
    lines = [f"{line}<extra_id_0>{line} <image_here>x" for line in english_lines()[:1000]]
    ids = library(tmp_path / "new" / "tokenizer.model").encode(lines)
    first = library(english_model).get_piece_size()
    assert all(row.count(first) == row.count(first + 1) == 1 for row in ids)
    assert transformers_ids(tmp_path / "new", lines) == ids
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"tokenizer.model", "tokenizer_config.json"}
    old, new = (json.loads((place / "tokenizer_config.json").read_text()) for place in (folder, tmp_path / "new"))
    declared = new.pop("added_tokens_decoder")
    assert new == old
    assert {number: entry["content"] for number, entry in declared.items()} == {
        str(first): "<extra_id_0>",
        str(first + 1): "<image_here>",
    }


@pytest.mark.parametrize(
    "configuration",
    [{"extra_special_tokens": ["<s>", "</s>"]}, {"additional_special_tokens": []}, {"extra_special_tokens": []}],
)
def test_a_configuration_with_special_tokens_of_its_own(configuration, english_model, tmp_path):
    folder = llama_directory(tmp_path / "base", english_model, **configuration)
    add_tokens(str(folder), tmp_path / "new")
    lines = [f"{line}<extra_id_3> x" for line in english_lines()[:100]]
    assert transformers_ids(tmp_path / "new", lines) == library(tmp_path / "new" / "tokenizer.model").encode(lines)


def test_a_control_token_is_special_and_in_no_text(english_model, tmp_path):
    folder = llama_directory(tmp_path / "base", english_model)
    found = add_tokens(str(folder), tmp_path / "new", ["<ctl>"], control=True)
    processor = library(tmp_path / "new" / "tokenizer.model")
    assert processor.is_control(found.added["<ctl>"])
    assert found.added["<ctl>"] not in processor.encode("a <ctl> b")
    assert AutoTokenizer.from_pretrained(tmp_path / "new").convert_tokens_to_ids("<ctl>") == found.added["<ctl>"]


def test_a_token_that_is_there_stays_where_it_is(english_model, tmp_path):
    add_tokens(str(english_model), tmp_path / "one.model", ["<a>"])
    found = add_tokens(str(tmp_path / "one.model"), tmp_path / "two.model", ["<b>", "<a>"])
    size = library(english_model).get_piece_size()
    assert (found.present, found.added) == ({"<a>": size}, {"<b>": size + 1})


def test_a_unigram_model_takes_tokens_too(tmp_path):
    base = tmp_path / "unigram.model"
    with base.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(made_lines("latin", 500)), model_writer=file, vocab_size=200, minloglevel=2
        )
    found = add_tokens(str(base), tmp_path / "new.model", ["<a>"])
    processor = library(tmp_path / "new.model")
    lines = made_lines("latin", 200)
    assert processor.encode(lines) == library(base).encode(lines)
    assert processor.encode("x<a>y").count(found.added["<a>"]) == 1


@pytest.mark.parametrize(
    ("token", "text", "finders", "warning"),
    [
        ("a b", "xa by", ["transformers"], "'a b' is found by transformers alone, from a directory with"),
        (
            "a\u2581b",
            "xa by",
            ["sentencepiece"],
            "SentencePiece finds it where a text has a space, transformers only where",
        ),
        ("a\u2581b", "xa\u2581by", ["sentencepiece", "transformers"], "transformers only where it has \u2581 itself"),
        ("<a>", "x<a>y", ["sentencepiece", "transformers"], None),
    ],
)
def test_what_a_library_does_not_find_is_told(token, text, finders, warning, english_model, tmp_path, capsys):
    folder = llama_directory(tmp_path / "base", english_model)
    assert main(["tokenizer", "add-tokens", str(folder), str(tmp_path / "n"), "--token", token]) == 0
    shown = capsys.readouterr().err
    assert (warning in shown) if warning else not shown
    number = library(english_model).get_piece_size()
    ids = {
        "sentencepiece": library(tmp_path / "n" / "tokenizer.model").encode(text),
        "transformers": transformers_ids(tmp_path / "n", [text])[0],
    }
    assert [name for name, row in ids.items() if number in row] == finders


def test_a_tokenizer_json_with_the_old_vocabulary_is_left_out(english_model, tmp_path, capsys):
    folder = llama_directory(tmp_path / "base", english_model)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "both")
    (tmp_path / "both" / "tokenizer.model").write_bytes(english_model.read_bytes())
    assert main(["tokenizer", "add-tokens", str(tmp_path / "both"), str(tmp_path / "new")]) == 0
    shown = capsys.readouterr()
    assert "tokenizer.json is left out" in shown.err and "<extra_id_7>" in shown.out
    assert not (tmp_path / "new" / "tokenizer.json").exists()
    lines = [f"{line}<extra_id_3> x" for line in english_lines()[:100]]
    assert transformers_ids(tmp_path / "new", lines) == library(tmp_path / "new" / "tokenizer.model").encode(lines)


def test_a_token_of_the_configuration_keeps_its_id(english_model, tmp_path):
    size = library(english_model).get_piece_size()
    folder = llama_directory(
        tmp_path / "base", english_model, added_tokens_decoder={str(size): {"content": "<pad>", "special": True}}
    )
    with pytest.raises(DataError, match=rf"adds <pad> as {size}, where <extra_id_0> would stand: make <pad> a piece"):
        add_tokens(str(folder), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    add_tokens(str(folder), tmp_path / "new", ["<pad>", *EXTRA_TOKENS])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<extra_id_0>"]) == [size, size + 1]
    assert len(tokenizer) == size + 9


NAMED = {"pad_token": "<pad>", "additional_special_tokens": ["<u>", "<v>"], "image_token": "<im>"}
"""Tokens that a configuration names without ids."""


def test_a_token_that_the_configuration_names_without_an_id_keeps_what_transformers_gives_it(english_model, tmp_path):
    size = library(english_model).get_piece_size()
    folder = llama_directory(tmp_path / "base", english_model, **NAMED)
    old = AutoTokenizer.from_pretrained(folder)
    (tmp_path / "text.txt").write_text("text")
    assert compare([str(folder)], [tmp_path / "text.txt"]).sizes == (len(old),)
    tokens = ["<pad>", "<im>", "<u>", "<v>"]
    assert old.convert_tokens_to_ids(tokens) == list(range(size, size + 4))
    for given_tokens, moved in ((["<x>"], "<pad>"), (["<pad>", "<x>"], "<im>"), (["<pad>", "<im>", "<v>"], "<u>")):
        with pytest.raises(DataError, match=rf"names {moved} without an id, .*: make {moved} a piece first, with"):
            add_tokens(str(folder), tmp_path / "new", given_tokens)
    with pytest.raises(DataError, match=f"names <pad> without an id, so transformers gives it the next one, {size}: "):
        merge(str(folder), str(other_model(tmp_path)), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    add_tokens(str(folder), tmp_path / "new", [*tokens, "<x>"])
    merge(str(tmp_path / "new"), str(tmp_path / "greek.model"), tmp_path / "merged")
    for place in ("new", "merged"):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / place)
        assert tokenizer.convert_tokens_to_ids([*tokens, "<x>"]) == list(range(size, size + 5))


def other_model(folder):
    return train_model(folder / "greek.model", made_lines("greek", 300), 400)


def as_twice(content):
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(content)
    model.pieces[300].piece = model.pieces[299].piece
    return model.SerializeToString()


DAMAGE = {
    "truncated": (lambda content: content[:3000], "is not a SentencePiece model|is truncated"),
    "pickled": (lambda content: pickle.dumps({"model": content}), "is not a SentencePiece model"),
    "empty": (lambda content: b"", "it has no pieces"),
    "twice": (as_twice, r"piece 300, .*, stands there twice"),
    "not UTF-8": (
        lambda content: content.replace("\u2581the".encode(), b"\xe2\x28\x81the"),
        r"piece \d+, b'\\xe2\(\\x81the.*', is not UTF-8 text: the file is damaged",
    ),
    "text": (lambda content: b"the quick brown fox\n" * 40, "is not a SentencePiece model"),
    "pointer": (lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line(english_model, tmp_path, kind, capsys):
    change, problem = DAMAGE[kind]
    (tmp_path / "base.model").write_bytes(change(english_model.read_bytes()))
    with pytest.raises(DataError, match=problem):
        add_tokens(str(tmp_path / "base.model"), tmp_path / "new.model")
    assert main(["tokenizer", "add-tokens", str(tmp_path / "base.model"), str(tmp_path / "new.model")]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith(f"error: {tmp_path}/base.model: ") and shown.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["base.model"]


@settings(max_examples=40, deadline=None)
@given(changes=st.dictionaries(st.integers(0, 9000), st.integers(0, 255), min_size=1, max_size=20))
def test_whatever_a_model_holds_it_is_one_line(english_model, tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(english_model.read_bytes())
    for place, value in changes.items():
        content[-place % len(content)] = value
    (folder / "base.model").write_bytes(content)
    (folder / "text.txt").write_text("The text.\n")
    for act in (
        lambda: add_tokens(str(folder / "base.model"), folder / "added.model"),
        lambda: merge(str(folder / "base.model"), str(english_model), folder / "one.model"),
        lambda: merge(str(english_model), str(folder / "base.model"), folder / "other.model"),
        lambda: check(str(folder / "base.model"), [folder / "text.txt"]),
    ):
        try:
            act()
        except DataError as error:
            assert "base.model" in str(error) and "\n" not in str(error)


def test_a_model_cut_between_pieces_is_truncated(english_model, tmp_path):
    model = proto(english_model)
    model.ClearField("trainer_spec")
    model.ClearField("normalizer_spec")
    (tmp_path / "base.model").write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match=rf"ends after piece {len(model.pieces) - 1}: it is truncated"):
        add_tokens(str(tmp_path / "base.model"), tmp_path / "new.model")


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (["▁the"], r"▁the is there already, as normal piece \d+: choose another token"),
        (["<s>"], "<s> is there already, as control piece 1"),
        (["<0x0A>"], r"<0x0A> is there already, as byte piece \d+"),
        (["<a>", "<b>", "<a>"], "token <a> is given twice"),
        ([""], "a token is empty"),
        (["\ud800"], "is no text"),
        ([], "no token is given"),
    ],
)
def test_tokens_that_cannot_be_added(english_model, tmp_path, tokens, problem):
    with pytest.raises(DataError, match=problem):
        add_tokens(str(english_model), tmp_path / "new.model", tokens)
    assert not list(tmp_path.iterdir())


def test_what_exists_is_left_alone(english_model, tmp_path):
    (tmp_path / "new.model").write_text("mine")
    with pytest.raises(CheckpointError, match=r"new\.model: exists already; name a file that does not"):
        add_tokens(str(english_model), tmp_path / "new.model")
    assert (tmp_path / "new.model").read_text() == "mine"


def test_a_directory_without_a_tokenizer(tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(DataError, match=r"base: holds no tokenizer: expected tokenizer\.model or tokenizer\.json"):
        add_tokens(str(tmp_path / "base"), tmp_path / "new")
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"tokenizer\.json: is no tokenizer: expected a JSON object with a model"):
        add_tokens(str(tmp_path / "base"), tmp_path / "new")
    with pytest.raises(
        DataError, match=r"no-such-place does not exist: expected a directory, a \.model file, or a hub name, own"
    ):
        add_tokens("no-such-place", tmp_path / "new")
