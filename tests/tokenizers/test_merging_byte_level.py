"""A merged byte-level tokenizer keeps every id of the base, those of special tokens behind its vocabulary too."""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_recipes.cli.main import main
from neva_recipes.config import DataError
from neva_recipes.tokenizers import check, merge
from tests.tokenizers.hand_made import hand_made_byte_level
from tests.tokenizers.reading import transformers_ids
from tests.tokenizers.texts import ALPHABETS, QWEN_SPLIT, byte_level_directory, english_lines, made_lines

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def backend(folder):
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def ids_of(folder, lines):
    tokenizer = backend(folder)
    return [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    return byte_level_directory(tmp_path_factory.mktemp("english") / "base", english_lines(), 900, SPECIALS)


@pytest.fixture(scope="module")
def greek(tmp_path_factory):
    return byte_level_directory(tmp_path_factory.mktemp("greek") / "new", made_lines("greek", 1000), 700, ("<|mine|>",))


@pytest.mark.parametrize("configuration", [{}, {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}])
def test_ids_of_the_base_stay_and_new_text_gets_shorter(configuration, english, greek, tmp_path, capsys):
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.json").write_bytes((english / "tokenizer.json").read_bytes())
    settings_of_it = {"tokenizer_class": "PreTrainedTokenizerFast", **configuration, "chat_template": "{{ messages }}"}
    (base / "tokenizer_config.json").write_text(json.dumps(settings_of_it))
    (base / "vocab.json").write_text("the old vocabulary")
    old, new = english_lines()[:1000], made_lines("greek", 2000)[1000:]
    (tmp_path / "old.txt").write_text("\n".join(old))
    words = [str(base), str(greek), str(tmp_path / "m"), "--old-text", str(tmp_path / "old.txt")]
    assert main(["tokenizer", "merge", *words]) == 0
    shown = capsys.readouterr().out
    assert "0 of 1,000 lines of old text have other ids" in shown and "<|mine|>" in shown
    before, after = backend(base).get_vocab(with_added_tokens=True), backend(tmp_path / "m").get_vocab()
    assert {token: after[token] for token in before} == before
    assert [after[token] for token in SPECIALS] == [900, 901, 902]
    fresh = sorted(after[token] for token in after.keys() - before.keys())
    assert fresh == list(range(903, 903 + len(fresh))) and len(fresh) > 300
    assert ids_of(base, old) == ids_of(tmp_path / "m", old)
    assert sum(map(len, ids_of(tmp_path / "m", new))) < sum(map(len, ids_of(base, new))) / 2
    assert max(max(row) for row in ids_of(tmp_path / "m", new)) >= 903
    lines = [f"<|im_start|>{one}<|im_end|>{other}" for one, other in zip(old, new, strict=True)]
    assert transformers_ids(tmp_path / "m", lines) == ids_of(tmp_path / "m", lines)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}


@settings(max_examples=6, deadline=None)
@given(
    scripts=st.lists(st.sampled_from(sorted(ALPHABETS)), min_size=2, max_size=2),
    seed=st.integers(0, 1000),
    sizes=st.tuples(st.integers(270, 700), st.integers(270, 700)),
    ignores=st.booleans(),
)
def test_any_two(tmp_path_factory, scripts, seed, sizes, ignores):
    folder = tmp_path_factory.mktemp("pair")
    old, new = (made_lines(script, 300, seed + place) for place, script in enumerate(scripts))
    base = byte_level_directory(folder / "base", old, sizes[0], SPECIALS)
    other = byte_level_directory(folder / "new", new, sizes[1])
    layout = json.loads((base / "tokenizer.json").read_text())
    layout["model"]["ignore_merges"] = ignores
    (base / "tokenizer.json").write_text(json.dumps(layout))
    lines = made_lines(scripts[0], 1000, seed)
    (folder / "old.txt").write_text("\n".join(lines))
    found = merge(str(base), str(other), folder / "merged", old_text=folder / "old.txt")
    before = backend(base).get_vocab(with_added_tokens=True)
    after = backend(folder / "merged").get_vocab(with_added_tokens=True)
    assert {token: after[token] for token in before} == before
    assert [after[token] for token in found.tokens.added] == list(range(len(before), found.tokens.size))
    both = zip(ids_of(base, lines), ids_of(folder / "merged", lines), strict=True)
    changed = [number for number, (one, other) in enumerate(both, 1) if one != other]
    assert (found.old_text.changed, [line.number for line in found.old_text.first]) == (len(changed), changed[:5])
    text = [*lines[:500], *made_lines(scripts[1], 500, seed + 1)]
    assert transformers_ids(folder / "merged", text) == ids_of(folder / "merged", text)
    # Text alone becomes each new token that is text.
    merged = backend(folder / "merged")
    for token in found.tokens.added:
        alone = merged.decoder.decode([token])
        if "\ufffd" not in alone:
            assert merged.encode(alone, add_special_tokens=False).ids == [after[token]]


def test_a_token_that_the_base_takes_apart_gets_a_merge_of_its_two_parts(tmp_path):
    base = hand_made_byte_level(tmp_path / "base", [("b", "c")], ["<end>"])
    new = hand_made_byte_level(tmp_path / "new", [("a", "b"), ("ab", "c"), ("c", "d"), ("ab", "cd"), ("d", "e")])
    found = merge(str(base), str(new), tmp_path / "m")
    # abc becomes a and bc, and gets that merge; then abcd, so far a, bc and d, becomes abc and d, and gets that one.
    assert found.tokens.added == ("ab", "abc", "cd", "abcd", "de")
    layout = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    assert layout["model"]["merges"] == ["b c", "a b", "ab c", "c d", "ab cd", "d e", "a bc", "abc d"]
    assert backend(tmp_path / "m").encode("abc abcd").tokens[0] == "abc"
    assert layout["model"]["vocab"]["<end>"] == 6 == backend(base).token_to_id("<end>")


def test_a_token_in_three_parts_is_left_out_with_its_merges(tmp_path):
    base = hand_made_byte_level(tmp_path / "base", [("b", "c")])
    new = hand_made_byte_level(tmp_path / "new", [("a", "b"), ("c", "d"), ("ab", "cd"), ("abcd", "e")])
    found = merge(str(base), str(new), tmp_path / "m")
    assert (found.tokens.added, found.tokens.unproducible) == (("ab", "cd"), ("abcd", "abcde"))
    assert json.loads((tmp_path / "m" / "tokenizer.json").read_text())["model"]["merges"] == ["b c", "a b", "c d"]
    assert backend(tmp_path / "m").encode("abcde").tokens == ["a", "bc", "d", "e"]


def test_what_the_pre_tokenizer_cuts_is_left_out(english, tmp_path, capsys):
    lines = [f"{word} {number % 3 + 12}" for number, word in enumerate(made_lines("greek", 600))]
    new = byte_level_directory(tmp_path / "new", lines, 600, split=QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}+|", 1))
    assert "12" in backend(new).get_vocab()
    assert main(["tokenizer", "merge", str(english), str(new), str(tmp_path / "m")]) == 0
    assert "another pre-tokenizer" in capsys.readouterr().err
    assert not [token for token in backend(tmp_path / "m").get_vocab() if token.isdecimal() and len(token) > 1]


def change(layout, **model):
    return json.dumps(layout | {"model": layout["model"] | model})


DAMAGE = {
    "truncated": (lambda layout: json.dumps(layout)[:500], "cannot be read"),
    "ends of words": (
        lambda layout: change(layout, end_of_word_suffix="</w>"),
        "is BPE with end_of_word_suffix='</w>', which merge does not support",
    ),
    "begins of words": (
        lambda layout: change(layout, continuing_subword_prefix="##"),
        "is BPE with continuing_subword_prefix='##', which merge does not support",
    ),
    "dropout": (lambda layout: change(layout, dropout=0.1), "is BPE with dropout=0.1, which merge does not support"),
    "WordPiece": (
        lambda layout: change(layout, type="WordPiece"),
        r"is a WordPiece tokenizer, which merge does not support: expected byte-level BPE, or the tokenizer\.model",
    ),
    "same id": (lambda layout: change(layout, vocab={"a": 0, "b": 0}), "tokens a and b have the same id, 0"),
    "no id": (lambda layout: change(layout, vocab={"a": "x"}), "token a has the id x, expected a whole number"),
    "no merge": (lambda layout: change(layout, merges=["a b c"]), "cannot be read as a tokenizer"),
    "no parts": (lambda layout: change(layout, merges=["zz q"]), "cannot be read as a tokenizer"),
    "no merges": (lambda layout: change(layout, merges=None), "its model has no vocab and merges"),
    "list": (lambda layout: "[]", "is no tokenizer: expected a JSON object with a model"),
    "moved": (
        lambda layout: json.dumps(layout | {"added_tokens": [{**layout["added_tokens"][0], "id": 5000}]}),
        r"token <\|endoftext\|> has the id 5000, but the tokenizers library gives it 900",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("side", ["base", "new"])
def test_damage_is_one_line(kind, side, english, greek, tmp_path, capfd):
    damage, problem = DAMAGE[kind]
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(damage(json.loads((english / "tokenizer.json").read_text())))
    pair = (folder, greek) if side == "base" else (english, folder)
    with pytest.raises(DataError, match=problem):
        merge(*map(str, pair), tmp_path / "m")
    assert main(["tokenizer", "merge", *map(str, pair), str(tmp_path / "m")]) == 2
    assert capfd.readouterr().err.count("error: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_a_token_of_the_configuration_keeps_its_id(english, greek, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.json").write_bytes((english / "tokenizer.json").read_bytes())
    settings_of_it = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {"903": {"content": "<|tool|>", "special": True}},
    }
    (base / "tokenizer_config.json").write_text(json.dumps(settings_of_it))
    found = merge(str(base), str(greek), tmp_path / "m")
    assert found.tokens.base_size == 904
    assert transformers_ids(tmp_path / "m", ["<|tool|>"]) == transformers_ids(base, ["<|tool|>"]) == [[903]]


def test_tokens_that_the_configuration_names_without_ids_keep_them(english, greek, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.json").write_bytes((english / "tokenizer.json").read_bytes())
    settings_of_it = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    settings_of_it |= {"additional_special_tokens": ["<u>"], "image_token": "<im>", "eos_token": "<|im_end|>"}
    (base / "tokenizer_config.json").write_text(json.dumps(settings_of_it))
    found = merge(str(base), str(greek), tmp_path / "m")
    named = ["<pad>", "<im>", "<u>", "<|im_end|>"]
    assert found.tokens.base_size == 906
    for folder in (base, tmp_path / "m"):
        assert transformers_ids(folder, named) == [[903], [904], [905], [902]]
    (tmp_path / "text.txt").write_text("text")
    assert not {*named} & {*check(str(tmp_path / "m"), [tmp_path / "text.txt"]).lost}


def test_a_model_of_an_old_release_names_no_type(tmp_path):
    base = hand_made_byte_level(tmp_path / "base", [("b", "c")])
    layout = json.loads((base / "tokenizer.json").read_text())
    del layout["model"]["type"]
    (base / "tokenizer.json").write_text(json.dumps(layout))
    assert backend(base).encode("abc").tokens == ["a", "bc"]
    new = hand_made_byte_level(tmp_path / "new", [("d", "e")])
    assert merge(str(base), str(new), tmp_path / "m").tokens.added == ("de",)
    assert backend(tmp_path / "m").encode("abcde").tokens == ["a", "bc", "de"]
    (tmp_path / "text.txt").write_text("abc")
    assert check(str(base), [tmp_path / "text.txt"]).lost == ()


def test_old_text_is_read_as_other_text_is(english, greek, tmp_path, capsys):
    (tmp_path / "old.jsonl").write_text(json.dumps({"body": "one line\nanother"}) + "\n")
    words = ["tokenizer", "merge", str(english), str(greek), str(tmp_path / "m"), "--old-text"]
    assert main([*words, str(tmp_path / "old.jsonl"), "--json-keys", "body"]) == 0
    assert "0 of 2 lines of old text have other ids" in capsys.readouterr().out
    for text, problem in (("\ud800 x", "holds half a surrogate pair"), ("a\0b", "holds a zero byte")):
        (tmp_path / "bad.jsonl").write_text(json.dumps({"text": text}) + "\n")
        assert main([*words[:4], str(tmp_path / "n"), words[-1], str(tmp_path / "bad.jsonl")]) == 2
        assert problem in capsys.readouterr().err
    assert not (tmp_path / "n").exists()
