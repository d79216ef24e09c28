"""Tokenizers that the tests of this folder share."""

import pytest

from tests.tokenizers.texts import english_lines, train_model


@pytest.fixture(scope="session")
def english_model(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("english") / "english.model", english_lines())
