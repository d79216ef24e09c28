"""A merged SentencePiece model is that of the base for all text of the base, and both libraries read it alike."""

import itertools

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_recipes.cli.main import main
from neva_recipes.config import DataError
from neva_recipes.tokenizers import add_tokens, merge
from tests.tokenizers.hand_made import NORMAL, hand_made_sentencepiece
from tests.tokenizers.reading import library, proto, transformers_ids
from tests.tokenizers.texts import (
    ALPHABETS,
    byte_level_directory,
    english_lines,
    llama_directory,
    made_lines,
    train_model,
)


@pytest.fixture(scope="module")
def greek_model(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("greek") / "greek.model", made_lines("greek", 1000))


def require_base_first(base, merged):
    """Check that pieces and normaliser of the base are as they were, and that all others score below them."""
    old, new = proto(base), proto(merged)
    kept, added = new.pieces[: len(old.pieces)], new.pieces[len(old.pieces) :]
    assert [piece.SerializeToString() for piece in kept] == [piece.SerializeToString() for piece in old.pieces]
    assert new.normalizer_spec == old.normalizer_spec
    assert all(piece.type == NORMAL for piece in added)
    scores = [min(piece.score for piece in old.pieces if piece.type == NORMAL), *(piece.score for piece in added)]
    assert all(one > other for one, other in itertools.pairwise(scores))


def test_old_text_keeps_its_ids_and_new_text_gets_shorter(english_model, greek_model, tmp_path):
    old, new = english_lines()[:1000], made_lines("greek", 2000)[1000:]
    (tmp_path / "old.txt").write_text("\n".join(old))
    found = merge(str(english_model), str(greek_model), tmp_path / "m.model", old_text=tmp_path / "old.txt")
    require_base_first(english_model, tmp_path / "m.model")
    before, after = library(english_model), library(tmp_path / "m.model")
    assert found.old_text.lines == len(old) and after.get_piece_size() == found.tokens.size
    assert before.encode(old) == after.encode(old) and found.old_text.changed == 0
    assert sum(map(len, after.encode(new))) < sum(map(len, before.encode(new))) / 4
    lines = [f"{one} {other}" for one, other in zip(old, new, strict=True)]
    folder = llama_directory(tmp_path / "directory", tmp_path / "m.model")
    assert transformers_ids(folder, lines) == after.encode(lines)


@settings(max_examples=6, deadline=None)
@given(
    scripts=st.lists(st.sampled_from(sorted(ALPHABETS)), min_size=2, max_size=2),
    seed=st.integers(0, 1000),
    sizes=st.tuples(st.integers(330, 700), st.integers(330, 700)),
    mixed=st.booleans(),
)
def test_any_two(tmp_path_factory, scripts, seed, sizes, mixed):
    folder = tmp_path_factory.mktemp("pair")
    old, new = (made_lines(script, 300, seed + place) for place, script in enumerate(scripts))
    base = train_model(folder / "base.model", old, sizes[0])
    other = train_model(folder / "new.model", new + old[:100] * mixed, sizes[1])
    directory = llama_directory(folder / "base", base)
    lines = made_lines(scripts[0], 1000, seed)
    (folder / "old.txt").write_text("\n".join(lines))
    found = merge(str(directory), str(other), folder / "merged", old_text=folder / "old.txt")
    merged = folder / "merged" / "tokenizer.model"
    require_base_first(base, merged)
    before, after = library(base), library(merged)
    changed = [n for n, line in enumerate(lines, 1) if before.encode(line) != after.encode(line)]
    assert (found.old_text.changed, [line.number for line in found.old_text.first]) == (len(changed), changed[:5])
    for line in found.old_text.first:
        assert line.pieces == tuple(
            dict.fromkeys(
                after.id_to_piece(one) for one in after.encode(lines[line.number - 1]) if one >= before.get_piece_size()
            )
        )
    # Every piece that was added can be had.
    model = proto(merged)
    model.normalizer_spec.add_dummy_prefix = False
    alone = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    for number, piece in enumerate(found.tokens.added, before.get_piece_size()):
        assert alone.encode(piece.replace("\u2581", " ")) == [number]
    assert not {*found.tokens.added} & {*found.tokens.unproducible}
    text = [*lines[:500], *made_lines(scripts[1], 500, seed + 1)]
    assert transformers_ids(folder / "merged", text) == after.encode(text)


def test_what_the_base_takes_apart_is_left_out(english_model, tmp_path, capsys):
    base = hand_made_sentencepiece(tmp_path / "base.model", english_model, ["bc", "\u2581", "a", "b", "c", "d"])
    new = hand_made_sentencepiece(
        tmp_path / "new.model", english_model, ["ab", "cd", "abcd", "\u2581", "a", "b", "c", "d"]
    )
    assert "abcd" in library(new).encode(" abcd", out_type=str)
    words = ["tokenizer", "merge", str(base), str(new), str(tmp_path / "m.model")]
    assert main(words) == 0
    assert "  5 of NEW are in BASE already\n  1 of NEW are left out" in capsys.readouterr().out
    merged = library(tmp_path / "m.model")
    assert [piece for piece in ("ab", "cd", "abcd") if merged.piece_to_id(piece) != merged.unk_id()] == ["ab", "cd"]
    # Of a, b, c and d the base makes a, bc and d, which no piece joins.
    assert merged.encode("abcd", out_type=str) == ["\u2581", "a", "bc", "d"]
    assert merged.encode("cdab", out_type=str) == ["\u2581", "cd", "ab"]


def test_special_pieces_of_the_new_one_are_told_and_not_taken(english_model, greek_model, tmp_path, capsys):
    add_tokens(str(greek_model), tmp_path / "one.model", ["<mine>"])
    add_tokens(str(tmp_path / "one.model"), tmp_path / "new.model", ["<ctl>"], control=True)
    assert main(["tokenizer", "merge", str(english_model), str(tmp_path / "new.model"), str(tmp_path / "m.model")]) == 0
    assert (
        "  1 special tokens of NEW are not taken (nemo-run tokenizer add-tokens --control adds them):\n    <ctl>\n"
        "  1 tokens of NEW that texts keep whole are not taken (nemo-run tokenizer add-tokens adds them):\n    <mine>\n"
        in capsys.readouterr().out
    )
    assert library(tmp_path / "m.model").piece_to_id("<mine>") == 0


def test_other_settings_are_told(english_model, tmp_path, capsys):
    new = train_model(tmp_path / "new.model", made_lines("greek", 200), 330, add_dummy_prefix=False)
    assert main(["tokenizer", "merge", str(english_model), str(new), str(tmp_path / "m.model")]) == 0
    assert "note: BASE and NEW differ, and BASE's is kept: add_dummy_prefix=True, not False" in capsys.readouterr().err
    assert proto(tmp_path / "m.model").normalizer_spec.add_dummy_prefix


def test_scores_far_below_zero_stay_apart(english_model, greek_model, tmp_path):
    model = proto(english_model)
    model.pieces[-1].score = -1e9  # where steps of one are below the accuracy of a score
    (tmp_path / "base.model").write_bytes(model.SerializeToString())
    merge(str(tmp_path / "base.model"), str(greek_model), tmp_path / "m.model")
    require_base_first(tmp_path / "base.model", tmp_path / "m.model")


def test_what_cannot_be_merged(english_model, tmp_path):
    unigram = tmp_path / "unigram.model"
    with unigram.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(made_lines("latin", 300)), model_writer=file, vocab_size=100, minloglevel=2
        )
    for pair in ((unigram, english_model), (english_model, unigram)):
        with pytest.raises(DataError, match=r"unigram\.model: is a unigram model, and only BPE models are merged"):
            merge(*map(str, pair), tmp_path / "m.model")
    folder = byte_level_directory(tmp_path / "bytes", made_lines("greek", 100), 300)
    with pytest.raises(
        DataError, match=r"is a SentencePiece model and .*bytes is byte-level BPE: only tokenizers of one"
    ):
        merge(str(english_model), str(folder), tmp_path / "m.model")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty\.txt: holds no text"):
        merge(str(english_model), str(english_model), tmp_path / "m.model", old_text=tmp_path / "empty.txt")
    assert not (tmp_path / "m.model").exists()
