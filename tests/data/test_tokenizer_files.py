"""Whatever the files of a tokenizer hold, it is loaded or refused in one line, by the launch and by the worker."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2Config

from neva_model.tokenizers import load_tokenizer, read_otherwise
from neva_recipes.config import DataError
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from tests.byte_level_tokenizers import train_byte_level
from tests.plan.test_files import LANGUAGE, write_tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")
VALUES = [None, True, 0, -1, 3, 10**9, 10**40, 1.5, float("inf"), "", "x", "\ud800", [], [3], ["a"], {}, {"a": 1}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "tokenizer"
    write_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": ["<a>"], "legacy": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | tokens))
    (folder / "config.json").write_text(json.dumps(LANGUAGE))
    return folder


def places(fields):
    """Return every object of a file with each of its keys, of large ones with the first few."""
    keys = list(fields if isinstance(fields, dict) else range(len(fields)))[:12]
    inner = [place for key in keys if isinstance(fields[key], dict | list) for place in places(fields[key])]
    return [(fields, key) for key in keys] + inner


def outcomes(folder):
    for read in (read_tokenizer, lambda path: load_tokenizer(str(path), vocab_size=None)):
        try:
            read(folder)
            yield None
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
            yield str(error)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(VALUES)), min_size=1, max_size=2),
)
def test_whatever_a_file_holds_it_is_one_line(tmp_path, whole, name, changes):
    shutil.copytree(whole, tmp_path / "it", dirs_exist_ok=True)
    fields = json.loads((whole / name).read_text())
    for number, value in changes:
        target, key = (found := places(fields))[number % len(found)]
        target[key] = json.loads(json.dumps(value))
    (tmp_path / "it" / name).write_text(json.dumps(fields))
    assert len(list(outcomes(tmp_path / "it"))) == 2


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("tokenizer_config.json", {"bos_token": 3}, "bos_token is 3, expected a token"),
        ("tokenizer_config.json", {"unk_token": ""}, 'unk_token is "", expected a token'),
        ("tokenizer_config.json", {"eos_token": {"lstrip": True}}, 'eos_token is {"lstrip": true}, expected a token'),
        ("tokenizer_config.json", {"tokenizer_class": ["a"]}, 'tokenizer_class is ["a"], expected a name'),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}, '"a" has the id "b"'),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, '"a" has the id -1'),
    ],
)
def test_what_cannot_be_is_told_at_launch_by_its_name(tmp_path, whole, name, change, named):
    assert list(outcomes(whole)) == [None, None]
    shutil.copytree(whole, tmp_path / "it")
    (tmp_path / "it" / name).write_text(json.dumps(json.loads((whole / name).read_text()) | change))
    launch, worker = outcomes(tmp_path / "it")
    assert named in launch and str(tmp_path / "it" / name) in launch
    assert worker is not None


def test_a_file_that_is_all_there_is_decides_whatever_family_stands_beside_it(tmp_path):
    """transformers 5 takes the class of config.json's family, which cuts numbers digit by digit."""
    lines = ["total? 45.67 on 2023-11-02"] * 50
    backend = train_byte_level(tmp_path, lines, 320, ["<|end|>"], eos_token="<|end|>")
    text = "total? 2023"
    ids = backend.encode(text).ids
    alone = load_tokenizer(str(tmp_path), vocab_size=None)
    assert alone.encode_text(text) == ids and read_otherwise(tmp_path, alone) is None
    Qwen2Config(vocab_size=320).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).encode(text) != ids
    beside = load_tokenizer(str(tmp_path), vocab_size=None)
    assert beside.encode_text(text) == ids == read_tokenizer(tmp_path).encode_text(text)
    # The text that is found is one that transformers really cuts otherwise.
    found = read_otherwise(tmp_path, beside)
    assert AutoTokenizer.from_pretrained(tmp_path).encode(found) != backend.encode(found).ids
