"""A Hugging Face language model goes with the tokenizer beside it, or one with more tokens at the end."""

import json
from pathlib import Path

import pytest

from neva_recipes.config import build
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.tokenizers.tokenizer import kept_tokenizer
from tests.plan.model_directories import write_model
from tests.plan.test_files import LANGUAGE, SPECIALS, rewrite, world, write_tokenizer

__all__ = ["world"]


def swap(folder, one, other, specials=SPECIALS):
    """Write the tokenizer in which two letters have each other's id."""
    write_tokenizer(folder, specials)

    def swapped(layout):
        ids = layout["model"]["vocab"]
        ids[one], ids[other] = ids[other], ids[one]
        return layout

    rewrite(folder / "tokenizer.json", swapped)


def only_slow(folder):
    """Write the files of a tokenizer that transformers alone can read."""
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"a": 0}))


@pytest.fixture
def with_own_tokenizer(world):
    """A recipe whose language model has a tokenizer of its own, and 260 rows."""
    folder, recipe = world
    write_model(folder / "language", {**LANGUAGE, "vocab_size": 260})
    write_tokenizer(folder / "language")
    recipe.model.language.vocab_size = 260
    recipe.model.projector.from_pretrained = None
    return folder, recipe


def found(recipe):
    findings = [finding for finding in check_files(build(recipe)) if finding.code != "projector-random"]
    return [(finding.severity, finding.code, finding.line()) for finding in findings]


def test_a_tokenizer_with_other_tokens_is_warned_of(with_own_tokenizer):
    folder, recipe = with_own_tokenizer
    swap(folder / "swapped", "a", "b")
    recipe.data.tokenizer = "swapped"
    line = (
        "model.language.from_pretrained=language, data.tokenizer=swapped: "
        "the tokenizer there has other tokens for 2 of the 258 ids that both have; set data.tokenizer=language"
    )
    assert found(recipe) == [("warning", "other-vocabulary", line)]
    recipe.data.tokenizer = "language"
    assert found(recipe) == []
    recipe.data.tokenizer = None
    assert found(recipe) == []


def test_two_tokenizers_are_compared_once(with_own_tokenizer):
    folder, recipe = with_own_tokenizer
    swap(folder / "swapped", "a", "b")
    recipe.data.tokenizer = "swapped"
    named, walks = kept_tokenizer(Path("swapped"), use_im_start_end=False), []

    class Walked(dict):
        def items(self):
            walks.append(self)
            return super().items()

    named.tokens = Walked(named.tokens)
    for size in (260, 258):
        recipe.model.language.vocab_size = size
        assert "other-vocabulary" in [code for _, code, _ in found(recipe)]
    assert len(walks) == 1


@pytest.mark.parametrize(
    "write",
    [
        write_tokenizer,
        lambda folder: write_tokenizer(folder, [*SPECIALS, "<more>", "<and more>"]),
        lambda folder: write_tokenizer(folder, SPECIALS[:1]),
        lambda folder: write_tokenizer(folder, [SPECIALS[0], "<renamed>"]),
        only_slow,
    ],
)
def test_a_tokenizer_that_only_has_more_at_the_end_is_not(write, with_own_tokenizer):
    folder, recipe = with_own_tokenizer
    write(folder / "more")
    recipe.data.tokenizer, recipe.data.conv_template = "more", "plain"
    assert [each for each in found(recipe) if each[1] != "template-tokens"] == []


def test_the_rows_that_only_serve_transformers_are_not_words(with_own_tokenizer):
    """The image token of an exported LLaVA has an id that a training gives to its own tokens around images."""
    folder, recipe = with_own_tokenizer
    write_tokenizer(folder / "language", [*SPECIALS, "<image>", "<pad>"])
    rewrite(folder / "language/config.json", lambda fields: {**fields, "image_token_index": 258})
    write_tokenizer(folder / "words", [*SPECIALS, "<word>"])
    recipe.data.tokenizer = "words"
    assert [each for each in found(recipe) if each[1] == "other-vocabulary"] == []


def test_a_size_is_only_advised_for_more_tokens_at_the_end(with_own_tokenizer):
    folder, recipe = with_own_tokenizer
    more = [*SPECIALS, *(f"<{number}>" for number in range(5))]
    write_tokenizer(folder / "more", more)
    recipe.data.tokenizer = "more"
    ((_, code, line),) = found(recipe)
    assert code == "vocabulary-size"
    assert line.endswith("; set model.language.vocab_size=263, or use the model's own tokenizer")
    swap(folder / "more", "a", "b", more)
    lines = {code: line for _, code, line in found(recipe)}
    assert set(lines) == {"vocabulary-size", "other-vocabulary"}
    assert lines["vocabulary-size"].endswith("more than the model; use the model's own tokenizer")
    recipe.model.language.vocab_size = 258
    # Rows that the recipe leaves away are the other half of the mistake.
    lines = [line for _, code, line in found(recipe) if code == "vocabulary-size"]
    assert lines and not [line for line in lines if "set model.language.vocab_size" in line]
    # A size that holds every token leaves only the warning, whose remedy takes the size back.
    recipe.model.language.vocab_size = 263
    ((severity, code, line),) = found(recipe)
    assert (severity, code) == ("warning", "other-vocabulary")
    assert line.endswith("set data.tokenizer=language model.language.vocab_size=260")
