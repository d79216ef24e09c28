"""Whatever stands in the JSON files of a tokenizer, a tool says in one line what is wrong, or works."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_recipes.config import DataError
from neva_recipes.tokenizers import add_tokens, check, compare, merge
from tests.tokenizers.hand_made import hand_made_byte_level
from tests.tokenizers.texts import llama_directory

STRANGE = [None, 5, -1, 1.5, True, "text", "", "\ud800", [], [5], ["a"], {}, {"a": 1}, {"type": "BPE"}, [[]], 10**30]

CONFIGURATION = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "added_tokens_decoder": {"9": {"content": "<im>", "lstrip": False, "special": True}},
    "additional_special_tokens": ["<u>"],
    "extra_special_tokens": {"image_token": "<v>"},
    "pad_token": {"content": "<pad>"},
    "bos_token": "<s>",
}


def places(value, path=()):
    """Return the path of every node of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, member in items for one in places(member, (*path, key)))]


def with_another(document, path, value):
    if not path:
        return value
    copy = json.loads(json.dumps(document))
    parent = copy
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return copy


def one_line_or_nothing(act):
    try:
        act()
    except DataError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    folder = hand_made_byte_level(tmp_path_factory.mktemp("whole") / "a", [("a", "b"), ("ab", "c")], ["<end>"])
    found = json.loads((folder / "tokenizer.json").read_text())
    return found | {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [found["pre_tokenizer"]]},
        "decoder": {"type": "Sequence", "decoders": [found["decoder"]]},
    }


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(), value=st.sampled_from(STRANGE), name=st.sampled_from(["tokenizer.json", "tokenizer_config.json"])
)
def test_a_byte_level_directory(layout, tmp_path_factory, data, value, name):
    folder = tmp_path_factory.mktemp("strange")
    whole = hand_made_byte_level(folder / "whole", [("d", "e")])
    strange = folder / "strange"
    strange.mkdir()
    contents = {"tokenizer.json": layout, "tokenizer_config.json": CONFIGURATION}
    contents[name] = with_another(contents[name], data.draw(st.sampled_from(places(contents[name]))), value)
    for file, content in contents.items():
        (strange / file).write_text(json.dumps(content))
    (folder / "text.txt").write_text("abcde <im> <pad>\n")
    one_line_or_nothing(lambda: merge(str(strange), str(whole), folder / "one"))
    one_line_or_nothing(lambda: merge(str(whole), str(strange), folder / "other"))
    one_line_or_nothing(lambda: compare([str(strange)], [folder / "text.txt"]))
    one_line_or_nothing(lambda: check(str(strange), [folder / "text.txt"], conv_template="nvgpt"))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), value=st.sampled_from(STRANGE))
def test_a_directory_with_a_sentencepiece_model(english_model, tmp_path_factory, data, value):
    folder = tmp_path_factory.mktemp("strange")
    source = llama_directory(folder / "source", english_model)
    changed = with_another(CONFIGURATION, data.draw(st.sampled_from(places(CONFIGURATION))), value)
    (source / "tokenizer_config.json").write_text(json.dumps(changed))
    (source / "added_tokens.json").write_text(json.dumps({"<x>": value}))
    (folder / "text.txt").write_text("text\n")
    one_line_or_nothing(lambda: add_tokens(str(source), folder / "new", ["<im>"]))
    one_line_or_nothing(lambda: merge(str(source), str(english_model), folder / "merged"))
    one_line_or_nothing(lambda: compare([str(source)], [folder / "text.txt"]))
    one_line_or_nothing(lambda: check(str(source), [folder / "text.txt"], conv_template="nvgpt"))


@pytest.mark.parametrize("part", ["pre_tokenizer", "decoder"])
@pytest.mark.parametrize("value", [5, "text", {"a": 1}, True])
def test_members_that_are_no_list(part, value, layout, tmp_path):
    strange = hand_made_byte_level(tmp_path / "strange", [])
    members = "pretokenizers" if part == "pre_tokenizer" else "decoders"
    (strange / "tokenizer.json").write_text(json.dumps(layout | {part: {"type": "Sequence", members: value}}))
    with pytest.raises(DataError, match=r"strange/tokenizer\.json: "):
        merge(str(strange), str(strange), tmp_path / "new")


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"unk_token": "no-such"}, r"cannot encode a text: .*Unk token `no-such` not found"),
        ({"continuing_subword_prefix": "a-long-one"}, r"merge 'a b' lacks continuing_subword_prefix='a-long-one'"),
        ({"type": "WordPiece", "unk_token": "[UNK]"}, r"cannot encode a text: .*Missing \[UNK\] token"),
        ({"type": "WordLevel", "unk_token": "[UNK]"}, r"cannot encode a text: .*Missing \[UNK\] token"),
    ],
)
def test_text_at_which_the_library_stops(model, problem, layout, tmp_path, capfd):
    strange = hand_made_byte_level(tmp_path / "strange", [])
    settings_of_it = {"max_input_chars_per_word": 100, "continuing_subword_prefix": ""} | model
    (strange / "tokenizer.json").write_text(json.dumps(layout | {"model": layout["model"] | settings_of_it}))
    (tmp_path / "text.txt").write_text("qz\n")
    for measure in (check, lambda name, files: compare([name], files)):
        with pytest.raises(DataError, match=rf"strange/tokenizer\.json: {problem}"):
            measure(str(strange), [tmp_path / "text.txt"])
    assert "panicked" not in capfd.readouterr().err
