"""Tokens that are no special tokens are kept whole in any text, as SentencePiece and transformers keep them."""

import json

import pytest
import sentencepiece
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from neva_model.data.text import TextDataset
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import DataError
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.tokenizers import add_tokens, check, compare
from tests.data.inputs import CORPUS, train_sentencepiece

TOKENS = ["<gauge>", "</gauge>", "\u00b0C", "ge>"]

TEXT = st.lists(
    st.sampled_from(
        [*TOKENS, "<gauge", "<", "a gauge", " ", "  ", "\n", "4,0 bar", "\u00b0", "\u65e5", "x", "e\u0301"]
    ),
    max_size=8,
).map("".join)

FLAGGED = [
    AddedToken("<gauge>", normalized=False),
    AddedToken("<left>", lstrip=True, normalized=False),
    AddedToken("<right>", rstrip=True, normalized=False),
    AddedToken("unit", single_word=True, normalized=False),
    AddedToken("caf\u00e9", normalized=True),
    AddedToken("two words", normalized=False),
    AddedToken("    ", normalized=False),
    AddedToken("gauge> <", normalized=True, lstrip=True, rstrip=True),
]

FLAGGED_WORDS = ["<gauge", "units", "cafe\u0301", "CAF\u00c9", " ", "  ", "\n", "x", ".", "7"]

FLAGGED_TEXT = st.lists(st.sampled_from([*(token.content for token in FLAGGED), *FLAGGED_WORDS]), max_size=9).map(
    "".join
)


def read_by_all(place):
    """Return what encodes a text in training, in the plan and in the tools, each with the space before it."""
    training, plan = load_tokenizer(str(place), vocab_size=None), read_tokenizer(place)
    return [lambda text: training.encode_text(text, prefix=True), lambda text: plan.encode_text(text, prefix=True)]


@pytest.fixture(scope="module")
def user_defined_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gauges")
    (folder / "base.model").write_bytes(train_sentencepiece())
    add_tokens(str(folder / "base.model"), folder / "gauges.model", TOKENS)
    return folder / "gauges.model"


@pytest.fixture(scope="module")
def readers(user_defined_model):
    return read_by_all(user_defined_model)


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
@example("<gauge>")
@example("<gauge><gauge> <gauge>\n")
def test_user_defined_pieces_are_those_of_sentencepiece(user_defined_model, readers, text):
    expected = sentencepiece.SentencePieceProcessor(model_file=str(user_defined_model)).encode(text)
    assert [read(text) for read in readers] == [expected, expected]


@pytest.fixture(scope="module", params=[False, True], ids=["llama", "legacy"])
def llama(request, user_defined_model, tmp_path_factory):
    """A directory with user-defined pieces, and tokens of the configuration behind them."""
    folder = tmp_path_factory.mktemp("llama")
    (folder / "tokenizer.model").write_bytes(user_defined_model.read_bytes())
    size = sentencepiece.SentencePieceProcessor(model_file=str(user_defined_model)).get_piece_size()
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word", "special"), False)
    declared = {
        str(size - 4): {"content": "<gauge>", **flags},
        str(size): {"content": "two words", **flags},
        str(size + 1): {"content": "<left>", **flags, "lstrip": True},
        str(size + 2): {"content": "<end>", **flags, "special": True},
    }
    configuration = {"tokenizer_class": "LlamaTokenizer", "legacy": request.param, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration | {"added_tokens_decoder": declared}))
    return folder


@pytest.fixture(scope="module")
def llama_readers(llama):
    return AutoTokenizer.from_pretrained(llama), read_by_all(llama)


@settings(max_examples=150, deadline=None)
@given(text=st.lists(TEXT | st.sampled_from(["two words", " <left>", "<left>"]), max_size=4).map("".join))
def test_ids_of_a_llama_directory_are_those_of_transformers(llama_readers, text):
    theirs, readers = llama_readers
    # At the begin of a text SentencePiece's own space is there whatever follows, unlike in transformers 5.
    text = "x" + text
    expected = theirs.encode(text, add_special_tokens=False)
    assert [read(text) for read in readers] == [expected, expected]


def byte_level(folder, tokens, normalizer=None, *, prefix_space=False, **configuration):
    backend = tokenizers.Tokenizer(models.BPE())
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens(["<|end|>", "<|im_end|>"])
    backend.add_tokens(tokens)
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings_ = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", **configuration}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings_))
    return folder


@pytest.fixture(
    scope="module",
    params=[(None, False), (normalizers.NFC(), False), (normalizers.Lowercase(), False), (None, True)],
    ids=["plain", "NFC", "lowercase", "prefix space"],
)
def flagged(request, tmp_path_factory):
    normalizer, prefix_space = request.param
    folder = byte_level(tmp_path_factory.mktemp("flagged") / "it", FLAGGED, normalizer, prefix_space=prefix_space)
    return AutoTokenizer.from_pretrained(folder), read_by_all(folder), prefix_space


@settings(max_examples=250, deadline=None)
@given(text=FLAGGED_TEXT)
def test_flags_of_added_tokens_are_heeded_as_by_transformers(flagged, text):
    theirs, readers, prefix_space = flagged
    text = "x" + text if prefix_space else text
    expected = theirs.encode(text, add_special_tokens=False)
    assert [read(text) for read in readers] == [expected, expected]


def test_flags_of_the_configuration_count(tmp_path):
    """Two tokens that tokenizer.json and tokenizer_config.json describe otherwise, and one of the latter alone."""
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    tokens = [AddedToken("<a>", normalized=False), AddedToken("<b>", normalized=False, special=True)]
    size = json.loads((byte_level(tmp_path / "one", tokens) / "tokenizer.json").read_text())["added_tokens"][-1]["id"]
    declared = {
        str(size - 1): {"content": "<a>", **flags, "special": True},
        str(size): {"content": "<b>", **flags, "special": False},
        str(size + 1): {"content": "<c>", **flags, "special": False},
    }
    folder = byte_level(tmp_path / "two", tokens, added_tokens_decoder=declared)
    for text in ("x<b>y<c>", "<c> <b>"):
        expected = AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)
        assert {size, size + 1} <= set(expected)
        assert [read(text) for read in read_by_all(folder)] == [expected, expected]
    assert [size - 1 in read("x<a>y") for read in read_by_all(folder)] == [False, False]


KEPT_OUT = ["</s>", "<|im_end|>", "<extra_id_1>", "<extra_id_4>", "<im_start>", "<image>"]


def test_no_text_makes_tokens_of_templates_and_images_whatever_their_type(tmp_path):
    """Phi-3 has `</s>` with special=false, NeMo's tokens are user-defined: a text could end an answer with them."""
    (tmp_path / "base.model").write_bytes(train_sentencepiece())
    names = [name for name in KEPT_OUT if name != "</s>"]
    add_tokens(str(tmp_path / "base.model"), tmp_path / "nemo.model", [*names, "<gauge>"])
    tokens = [AddedToken(name, normalized=False) for name in [*KEPT_OUT, "<gauge>"]]
    for place in (tmp_path / "nemo.model", byte_level(tmp_path / "phi", tokens, bos_token="<gauge>")):
        training = load_tokenizer(str(place), vocab_size=None)
        kept_out = {training.special_id(name) for name in KEPT_OUT}
        for read in read_by_all(place):
            for name in KEPT_OUT:
                assert not kept_out & set(read(f"a{name} b")), name
            # A token that begins every text is none of a text's own either.
            assert (training.special_id("<gauge>") in read("a<gauge>")) is (place.suffix == ".model")


def test_a_prepend_normalizer_refuses_tokens_that_the_library_finds_behind_spaces_only(tmp_path):
    folder = byte_level(
        tmp_path / "it",
        [AddedToken("<gauge>", normalized=True)],
        normalizers.Sequence([normalizers.Prepend("_"), normalizers.Replace(" ", "_")]),
    )
    found = AutoTokenizer.from_pretrained(folder)
    assert found.convert_tokens_to_ids("<gauge>") not in found.encode("x<gauge>")
    for read in (lambda: load_tokenizer(str(folder), vocab_size=None), lambda: read_tokenizer(folder).encode_text("a")):
        with pytest.raises(DataError, match=r"it: token <gauge> is looked for in normalised text.*normalized=false"):
            read()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT.filter(str.strip))
def test_tools_count_what_training_learns(user_defined_model, readers, tmp_path, text):
    line = " ".join(text.split())
    (tmp_path / "text.txt").write_text(line, encoding="utf-8")
    expected = len(readers[0](line))
    assert compare([str(user_defined_model)], [tmp_path / "text.txt"]).scripts[0].costs[0].tokens == expected
    found = check(str(user_defined_model), [tmp_path / "text.txt"])
    assert (found.tokens, found.changed) == (expected, 0)


@pytest.mark.parametrize("kind", ["SentencePiece", "byte-level"])
def test_rows_of_a_training_hold_the_ids_of_its_export(kind, user_defined_model, tmp_path):
    place = user_defined_model
    if kind == "byte-level":
        add_tokens(str(byte_level(tmp_path / "base", [])), tmp_path / "gauges", TOKENS)
        place = tmp_path / "gauges"
    text = "Pressure: <gauge>4,0 bar</gauge>"
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": text}))
    tokenizer = load_tokenizer(str(place), vocab_size=None)
    rows = TextDataset(str(tmp_path / "text.jsonl"), 512, tokenizer, tmp_path / "cache")
    tokenizer.save_pretrained(tmp_path / "export")
    exported = AutoTokenizer.from_pretrained(tmp_path / "export")
    ids = exported.encode(text, add_special_tokens=False)
    assert [ids.count(exported.convert_tokens_to_ids(token)) for token in ("<gauge>", "</gauge>")] == [1, 1]
    begin, end = ([] if number is None else [number] for number in (tokenizer.bos_id, tokenizer.eos_id))
    sample = rows.load(0)
    assert [*sample.tokens.tolist(), sample.labels.tolist()[-1]] == [*begin, *ids, *end]
    assert read_tokenizer(place).encode_text(text, prefix=True) == ids
    assert exported.decode(ids, skip_special_tokens=True) == text
