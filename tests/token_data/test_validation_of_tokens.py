"""Validation data that indexed datasets for the training hold too: a dry run tells of it."""

import os
import shutil

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from neva_recipes import gpt
from neva_recipes.config import build
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.trained import token_documents
from neva_recipes.token_data import make_token_data
from tests.token_data.reading import documents_of
from tests.tokenizers.texts import english_lines

LINES = list(dict.fromkeys(line.strip() for line in english_lines()[:400] if line.strip()))
SAID = ": val_loss says nothing of new data"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES))
    return path


@pytest.fixture
def made(text, byte_level, tmp_path):
    """Return a function that makes tokens of the text."""

    def make(name, source=text, **options):
        options = {"split": (4, 1, 0), "append_eod": True, **options}
        make_token_data([source], tmp_path / name, tokenizer=byte_level, json_keys=["text"], **options)
        return tmp_path / name

    return make


def told(training, validation, tokenizer):
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path, recipe.data.validation_data_path = str(training), str(validation)
    recipe.data.tokenizer, recipe.data.sequence_length = str(tokenizer), 32
    recipe.model.language.vocab_size = 700
    found = check_files(build(recipe))
    return [each.message.partition(SAID)[0] for each in found if each.code == "validation-is-training"]


def texts_of(folder, part):
    """Return the documents of a part without their end token, as Megatron reads them."""
    return {tuple(document[:-1]) for document in documents_of(folder, part)}


def test_the_text_that_tokens_were_made_of(made, text, byte_level):
    training = made("tokens") / "train.idx"
    assert told(training, text, byte_level) == ["this is training data, or a copy of it"]
    os.utime(text, (1, 1))  # another file now, as far as its name, size and time say: its documents are compared
    part = len(texts_of(training.parent, "train"))
    assert told(training, text, byte_level) == [f"{part} of the {len(LINES)} texts are training samples too"]


def test_a_part_of_the_text_under_another_name(made, byte_level, tmp_path):
    training = made("tokens", split=(1, 0, 0)) / "train.idx"
    new = [f"{line} And that is new." for line in LINES[:30]]
    (tmp_path / "v.txt").write_text("\n".join([*LINES[40:50], *new]))
    assert told(training, tmp_path / "v.txt", byte_level) == ["10 of the 40 texts are training samples too"]
    (tmp_path / "v.txt").write_text("\n".join(new))
    assert told(training, tmp_path / "v.txt", byte_level) == []


@pytest.mark.parametrize("ends", [True, False], ids=["end tokens", "none"])
def test_the_same_text_drawn_anew(ends, made, byte_level):
    one, other = made("one"), made("other", seed=5, append_eod=ends)
    assert told(one / "train.idx", one / "validation.idx", byte_level) == []
    sought = documents_of(other, "validation")
    trained = texts_of(one, "train")
    shared = sum(tuple(document[:-1] if ends else document) in trained for document in sought)
    assert shared > 0.5 * len(sought)
    assert told(one / "train.idx", other / "validation.idx", byte_level) == [
        f"{shared} of the {len(sought)} texts are training samples too"
    ]


def test_text_validated_on_its_tokens(made, text, byte_level):
    tokens = made("tokens")
    count = len(documents_of(tokens, "validation"))
    assert told(text, tokens / "validation.idx", byte_level) == [
        f"{count} of the {count} texts are training samples too"
    ]


def test_datasets_of_megatron_in_32_bits(made, byte_level, tmp_path):
    tokens = made("tokens")
    builder = IndexedDatasetBuilder(str(tmp_path / "megatron.bin"), dtype=np.int32)
    for document in documents_of(tokens, "train")[:7]:
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(str(tmp_path / "megatron.idx"))
    said = ["7 of the 7 texts are training samples too"]
    assert told(tokens / "train.idx", tmp_path / "megatron.idx", byte_level) == said


def test_of_large_files_the_first_documents_are_compared(made, text, byte_level, tmp_path, monkeypatch):
    tokens = made("tokens", split=(1, 0, 0))
    shutil.copy(text, tmp_path / "v.txt")
    with (tmp_path / "v.txt").open("a") as file:
        file.write("\nOne more.")
    monkeypatch.setattr(token_documents, "_SECONDS", 0)
    monkeypatch.setattr(token_documents, "_SMALL", 0)
    monkeypatch.setattr(token_documents, "_FEW", 0)
    assert told(tokens / "train.idx", tmp_path / "v.txt", byte_level) == [
        "at least 1 of the 1 text looked at is a training sample too"
    ]
