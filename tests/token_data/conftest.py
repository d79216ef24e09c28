"""A tokenizer of each kind, and text, that the tests of this folder share."""

import pytest

from tests.tokenizers.texts import byte_level_directory, english_lines, train_model


@pytest.fixture(scope="session")
def pieces(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("pieces") / "english.model", english_lines())


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes") / "english"
    return byte_level_directory(folder, english_lines(), 600, ("<|endoftext|>",), eos_token="<|endoftext|>")
