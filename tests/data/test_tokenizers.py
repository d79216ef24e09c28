"""Text becomes the ids of the SentencePiece library, never special tokens, and unfit tokenizers are refused."""

import dataclasses
import json
import re

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_model.tokenizers import load_recipe_tokenizer, load_tokenizer
from neva_recipes.config import DataError, RecipeError, config, recipe_to_yaml
from tests.data.inputs import SPECIALS, train_sentencepiece

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HOSTILE = st.lists(
    st.sampled_from([*SPECIALS, "<image>", "<unk>", "<im_start>", "[INST]", "<0x0A>", " ", "\n", "a", "</s", ">"])
    | TEXT
).map("".join)


def exclude_null(text):
    # The SentencePiece library ends its input at a null character, and finds its user-defined pieces in any text.
    return text.replace("\0", "").replace("<extra_id_", "")


@settings(max_examples=150, deadline=None)
@given(text=TEXT.map(exclude_null))
def test_text_becomes_the_ids_of_sentencepiece(sentencepiece_tokenizer, sentencepiece_model, text):
    library = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    assert sentencepiece_tokenizer.encode_text(text, prefix=True) == library.encode(text)
    # Behind a piece of its own, text gets no leading space.
    if text:
        behind = library.encode("<extra_id_7>" + text)
        assert (
            sentencepiece_tokenizer.encode_text(text) == behind[behind.index(library.piece_to_id("<extra_id_7>")) + 1 :]
        )


def test_special_tokens_in_text_become_the_pieces_that_sentencepiece_spells_them_with(llama_directories):
    library = sentencepiece.SentencePieceProcessor(model_file=str(llama_directories[False] / "tokenizer.model"))
    tokenizer = load_tokenizer(str(llama_directories[False]), vocab_size=None)
    text = "a </s>b</s> <s>The"
    ids = tokenizer.encode_text(text, prefix=True)
    assert ids == library.encode(text)
    assert "</" in tokenizer.pieces(ids)


@pytest.mark.parametrize("fixture", ["sentencepiece_tokenizer", "byte_level_tokenizer"])
@settings(max_examples=150, deadline=None)
@given(text=HOSTILE)
def test_no_text_becomes_a_special_token(request, fixture, text):
    tokenizer = request.getfixturevalue(fixture)
    ids = tokenizer.encode_text(text)
    special = set(tokenizer.hf.get_added_vocab().values())
    assert not special & set(ids)
    spelt = text.replace("\u2581", " ") if fixture == "sentencepiece_tokenizer" else text
    assert tokenizer.decode(tokenizer.encode_text("|" + text))[1:] == spelt


def test_special_pieces_that_merges_could_spell_are_taken_apart(tmp_path):
    # The vocabulary can build <x> from its merges, so plain encoding finds it even when it is no added token.
    vocabulary = {"<": 0, "x": 1, ">": 2, "<x": 3, "<x>": 4}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": 4, "content": "<x>", "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["<", "x"], ["<x", ">"]]},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    tokenizer = load_tokenizer(str(tmp_path), vocab_size=None)
    assert tokenizer.special_id("<x>") == 4
    assert tokenizer.pieces(tokenizer.encode_text("x<x><x>")) == ["x", "<", "x", ">", "<", "x", ">"]


def test_bare_model_file_has_its_whole_vocabulary(sentencepiece_model, sentencepiece_tokenizer):
    library = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    assert sentencepiece_tokenizer.vocab_size == library.get_piece_size()
    assert (sentencepiece_tokenizer.bos_id, sentencepiece_tokenizer.eos_id) == (library.bos_id(), library.eos_id())
    assert sentencepiece_tokenizer.special_id("<extra_id_1>") == library.piece_to_id("<extra_id_1>")


def test_directory_with_nothing_but_a_model_file_is_that_model(sentencepiece_model, sentencepiece_tokenizer, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    tokenizer = load_tokenizer(str(tmp_path), vocab_size=None)
    text = "  What digit\nis shown? é"
    assert tokenizer.encode_text(text, prefix=True) == sentencepiece_tokenizer.encode_text(text, prefix=True)


def test_image_tokens_are_added_behind_the_vocabulary(llama_directories):
    size = load_tokenizer(str(llama_directories[False]), vocab_size=None).vocab_size
    tokenizer = load_tokenizer(str(llama_directories[False]), vocab_size=size + 2, use_im_start_end=True)
    assert (tokenizer.im_start_id, tokenizer.im_end_id) == (size, size + 1)
    assert not {size, size + 1} & set(tokenizer.encode_text("<im_start><im_end>"))
    with pytest.raises(
        DataError,
        match=rf"has {size + 2} tokens, those of use_im_start_end counted, but "
        rf"model\.language\.vocab_size={size}: use the model's own tokenizer$",
    ):
        load_tokenizer(str(llama_directories[False]), vocab_size=size, use_im_start_end=True)


def test_image_tokens_are_nemos_where_the_vocabulary_has_them(sentencepiece_model):
    tokenizer = load_tokenizer(str(sentencepiece_model), vocab_size=560, use_im_start_end=True)
    assert tokenizer.pieces([tokenizer.im_start_id, tokenizer.im_end_id]) == ["<extra_id_4>", "<extra_id_5>"]
    assert tokenizer.vocab_size == 560


@pytest.mark.parametrize("legacy", [False, True])
def test_a_saved_tokenizer_loads_back_to_the_same(llama_directories, tmp_path, legacy):
    tokenizer = load_tokenizer(str(llama_directories[legacy]), vocab_size=None)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path), vocab_size=None)
    assert tokenizer.prefix_scheme == loaded.prefix_scheme == ("always" if legacy else "first")
    assert tokenizer.encode_text("What digit", prefix=True) == loaded.encode_text("What digit", prefix=True)


def test_decoding_leaves_out_what_is_no_token(sentencepiece_tokenizer):
    ids = sentencepiece_tokenizer.encode_text("It is a seven.", prefix=True)
    assert sentencepiece_tokenizer.decode([-200, *ids, sentencepiece_tokenizer.eos_id, 99999]) == "It is a seven."


def test_a_tokenizer_larger_than_the_model_is_refused(sentencepiece_model):
    with pytest.raises(DataError, match=r"has 560 tokens, but model\.language\.vocab_size=559"):
        load_tokenizer(str(sentencepiece_model), vocab_size=559)
    load_tokenizer(str(sentencepiece_model), vocab_size=560)


def test_a_missing_special_token_is_named(sentencepiece_tokenizer):
    with pytest.raises(DataError, match=re.escape("no special token <|eot_id|>")):
        sentencepiece_tokenizer.special_id("<|eot_id|>")
    with pytest.raises(DataError, match="no special token seven"):
        sentencepiece_tokenizer.special_id("seven")


@pytest.mark.parametrize(
    "options",
    [
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"byte_fallback": False, "vocab_size": 300},
        {"model_type": "unigram", "vocab_size": 330},
    ],
    ids=lambda options: next(iter(options)),
)
def test_sentencepiece_models_that_transformers_would_encode_otherwise_are_refused(tmp_path, options):
    path = tmp_path / "other.model"
    path.write_bytes(train_sentencepiece(**options))
    with pytest.raises(DataError, match="does not encode text as this SentencePiece model does"):
        load_tokenizer(str(path), vocab_size=None)


def test_what_cannot_be_loaded_is_one_clear_line(tmp_path):
    broken = tmp_path / "broken.model"
    broken.write_bytes(b"not a model")
    empty = tmp_path / "empty"
    empty.mkdir()
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    (hollow / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "tokenizer.json").write_text('{"version": ')
    (damaged / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    for path, reason in [
        (tmp_path / "nowhere", "does not exist"),
        (broken, "is not a SentencePiece model"),
        (empty, "cannot be loaded"),
        (hollow, "no vocabulary"),
        (damaged, "cannot be loaded"),
    ]:
        with pytest.raises(DataError, match=reason) as raised:
            load_tokenizer(str(path), vocab_size=None)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_half_a_surrogate_pair_is_refused(sentencepiece_tokenizer):
    with pytest.raises(DataError, match="half a surrogate pair"):
        sentencepiece_tokenizer.encode_text("a\ud800b")


def test_a_recipe_inherits_the_tokenizer_of_its_language_model(
    make_recipe, sentencepiece_model, byte_level_directory, tmp_path
):
    named = make_recipe(tokenizer=str(sentencepiece_model))
    assert load_recipe_tokenizer(named).vocab_size == 560
    from_directory = make_recipe(language_from=str(byte_level_directory))
    assert load_recipe_tokenizer(from_directory).name == str(byte_level_directory)

    (tmp_path / "checkpoints" / "step-3").mkdir(parents=True)
    (tmp_path / "recipe.yaml").write_text(recipe_to_yaml(as_config(named)))
    for earlier_run in (tmp_path, tmp_path / "checkpoints" / "step-3"):
        assert load_recipe_tokenizer(make_recipe(language_from=str(earlier_run))).name == str(sentencepiece_model)

    with pytest.raises(RecipeError, match=r"data\.tokenizer is not set"):
        load_recipe_tokenizer(make_recipe())


def as_config(node):
    values = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return config(
        type(node), **{name: as_config(v) if dataclasses.is_dataclass(v) else v for name, v in values.items()}
    )
