"""The tokenizer of a plan against the worker's own: size, special tokens, ids of text."""

import json
import re

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from neva_model.data import Turn, encode_conversation, get_template
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import DataError
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.prompts.encoding import encode_pieces
from neva_recipes.prompts.templates import TEMPLATES
from tests.data.inputs import byte_level_directory, llama_directories, sentencepiece_model, train_sentencepiece

__all__ = ["byte_level_directory", "llama_directories", "sentencepiece_model"]


@pytest.fixture(scope="module")
def saved_directory(llama_directories, tmp_path_factory):
    """A Llama tokenizer as transformers saves it."""
    folder = tmp_path_factory.mktemp("saved")
    load_tokenizer(str(llama_directories[False]), vocab_size=None).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def places(sentencepiece_model, llama_directories, byte_level_directory, saved_directory):
    return {
        "bare model": sentencepiece_model,
        "llama": llama_directories[False],
        "legacy": llama_directories[True],
        "byte level": byte_level_directory,
        "saved": saved_directory,
    }


PLACES = ("bare model", "llama", "legacy", "byte level", "saved")


def same(ours, theirs):
    assert ours.vocab_size == theirs.vocab_size
    assert ours.specials == theirs.hf.get_added_vocab()
    assert ours.vocabulary_digest == theirs.vocabulary_digest()
    for name in ("bos_id", "eos_id", "im_start_id", "im_end_id", "prefix_scheme", "adds_image_tokens"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("marks", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_the_vocabulary(places, place, marks):
    path = places[place]
    same(
        read_tokenizer(path, use_im_start_end=marks),
        load_tokenizer(str(path), vocab_size=None, use_im_start_end=marks),
    )


SETTINGS = [
    {"pad_token": "[PAD]"},
    {
        "pad_token": {"__type": "AddedToken", "content": "[PAD]", "special": True},
        "additional_special_tokens": ["<x>", "</s>"],
    },
    {"extra_special_tokens": ["<y>"], "bos_token": None},
    {"added_tokens_decoder": {"900": {"content": "<z>", "special": True}, "901": {"content": "<w>", "special": False}}},
]


@pytest.mark.parametrize("changes", SETTINGS)
@pytest.mark.parametrize("place", ["llama", "byte level", "saved"])
def test_tokens_that_only_the_configuration_names(places, place, changes, tmp_path):
    for file in places[place].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    same(read_tokenizer(tmp_path), load_tokenizer(str(tmp_path), vocab_size=None))


TURNS = st.lists(
    st.sampled_from(["a", " A chat", "</s> and", "<image", "seven. ", "\n", "日本", "é" * 3, "  "]), max_size=6
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    question=TURNS.map("".join),
    answer=TURNS.map("".join),
    place=st.sampled_from(PLACES),
    name=st.sampled_from(["plain", "v1", "llama_3"]),
    marks=st.booleans(),
)
def test_prompts_are_those_of_training(places, question, answer, place, name, marks):
    path, template = places[place], get_template(name)
    if name == "llama_3" and place != "byte level":
        with pytest.raises(DataError, match="no special token"):
            read_tokenizer(path).special_id("<|eot_id|>")
        return
    turns = [Turn("human", question.strip(), image=True), Turn("gpt", answer)]
    theirs = load_tokenizer(str(path), vocab_size=None, use_im_start_end=marks)
    expected = encode_conversation(turns, template, theirs, tokens_per_image=4)
    ours = read_tokenizer(path, use_im_start_end=marks)
    assert encode_pieces(template.pieces(turns), template, ours, 4)[0] == expected.tokens.tolist()


def test_every_template_names_its_special_tokens():
    assert TEMPLATES["plain"].special_tokens == ()
    assert TEMPLATES["v1"].special_tokens == ("<s>", "</s>")
    assert set(TEMPLATES["nvgpt"].special_tokens) == {"<extra_id_0>", "<extra_id_1>", "<extra_id_2>"}


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("tokenizer.json", b"{", "cannot be read"),
        ("tokenizer.json", b"[]", "cannot be read as a tokenizer"),
        ("tokenizer.json", b'{"model": {"vocab": {}}}', "no vocabulary"),
        ("tokenizer.json", b"\xff\xfe", "cannot be read"),
        ("tokenizer.model", b"not a model", "cannot be read as a SentencePiece model"),
        ("tokenizer.model", b"", "no pieces"),
        ("readme.txt", b"", "holds no tokenizer"),
    ],
)
def test_a_broken_tokenizer(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=part):
        read_tokenizer(tmp_path)


def test_of_several_files_the_folder_is_named(byte_level_directory):
    """Plan and worker say alike that the folder is the tokenizer, not one of its files."""
    assert read_tokenizer(byte_level_directory) is not None
    file = byte_level_directory / "tokenizer.json"
    reasons = []
    for load in (read_tokenizer, lambda path: load_tokenizer(str(path), vocab_size=None)):
        with pytest.raises(DataError) as raised:
            load(file)
        reasons.append(str(raised.value))
    assert reasons == [f"{file}: is one file of a tokenizer: name its folder, {byte_level_directory}"] * 2


OTHER_SETTINGS = {
    "unigram": ({"model_type": "unigram", "vocab_size": 310}, "model_type='unigram'"),
    "SentencePiece's own default": (
        {"normalization_rule_name": "nmt_nfkc"},
        "normalization_rule_name='nmt_nfkc'",
    ),
    "spaces joined": ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces=True"),
    "no bytes": ({"byte_fallback": False, "vocab_size": 300}, "byte_fallback=False"),
    "no space before the text": ({"add_dummy_prefix": False}, "add_dummy_prefix=False"),
    "spaces behind words": ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix=True"),
    "as Llama's": ({}, None),
    "digits apart": ({"split_digits": True}, None),
    "other marks": ({"unk_id": 3, "bos_id": 0, "eos_id": 1, "pad_id": 2, "control_symbols": ["<c>"]}, None),
}


@pytest.mark.parametrize("form", ["file", "directory", "directory of Llama's class"])
@pytest.mark.parametrize(("options", "setting"), OTHER_SETTINGS.values(), ids=OTHER_SETTINGS)
def test_plan_and_worker_refuse_the_same_models(options, setting, form, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_sentencepiece(**options))
    if form == "directory of Llama's class":
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": false}')
    place = path if form == "file" else tmp_path
    for read in (read_tokenizer, lambda path: load_tokenizer(str(path), vocab_size=None)):
        if setting is None:
            read(place)
            continue
        with pytest.raises(DataError, match=re.escape(f"SentencePiece model does ({setting}). Expected one trained")):
            read(place)


TEXT = "Hello  world\n\tAn 'a' \ufb01x: \u00e9\uff21 \u65e5\u672c 12 "


# A unigram model of so small a corpus has no pieces that the two would join otherwise.
@pytest.mark.parametrize(("options", "setting"), list(OTHER_SETTINGS.values())[1:], ids=list(OTHER_SETTINGS)[1:])
def test_transformers_encodes_otherwise_the_models_that_are_refused(options, setting, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(train_sentencepiece(**options))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": false}')
    theirs = AutoTokenizer.from_pretrained(tmp_path).encode(TEXT, add_special_tokens=False)
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model")).encode(TEXT)
    assert (theirs == own) is (setting is None)


def test_what_only_transformers_can_read_is_left_to_it(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    assert read_tokenizer(tmp_path) is None
