"""What a dry run says of indexed datasets, before anything is started."""

import json

import numpy as np
import pytest

from neva_recipes import gpt
from neva_recipes.config import build, input_paths, load_recipe, recipe_to_yaml
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.data.fingerprints import fingerprints
from neva_recipes.plan.data.lengths import sequence_lengths
from neva_recipes.plan.resuming.notes import resume_notes
from neva_recipes.token_data import make_token_data
from tests.token_data.reading import documents_of
from tests.tokenizers.texts import english_lines


@pytest.fixture
def tokens(byte_level, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(english_lines()[:200]))
    out = tmp_path / "tokens"
    make_token_data([tmp_path / "a.txt"], out, tokenizer=byte_level, json_keys=["text"], split=(4, 1, 0))
    return out


def recipe_of(tokens, tokenizer, **fields):
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path = [str(tokens / "train.idx"), str(tokens / "validation.idx")]
    recipe.data.tokenizer, recipe.data.sequence_length = str(tokenizer), 32
    recipe.data.global_batch_size = 8
    recipe.trainer.max_steps = 100
    recipe.model.language.vocab_size = 700
    for name, value in fields.items():
        setattr(recipe.data, name, value)
    return recipe


def test_tokens_samples_and_passes_are_counted(tokens, byte_level):
    lengths = sequence_lengths(build(recipe_of(tokens, byte_level, blend=[1.0, 3.0])))
    counts = [sum(map(len, documents_of(tokens, part))) for part in ("train", "validation")]
    rows = [-(-(count - 1) // 32) for count in counts]
    assert lengths.samples == sum(rows)
    assert lengths.source == (
        "full sequences; tokens counted in 2 files; "
        f"tokens/train.idx is 0.25 of the samples, in {200 / rows[0]:.2g} passes; "
        f"tokens/validation.idx is 0.75 of the samples, in {600 / rows[1]:.2g} passes"
    )


def faults(tokens, tokenizer, field="data_path"):
    name = str(tokens / "train.idx")
    recipe = build(recipe_of(tokens, tokenizer, **{field: name}))
    return [(found.code, found.message) for found in check_files(recipe) if f"data.{field}" in dict(found.fields)]


def test_nothing_is_wrong_with_good_files(tokens, byte_level):
    assert faults(tokens, byte_level) == []


@pytest.mark.parametrize("field", ["data_path", "validation_data_path"])
def test_another_tokenizer_is_refused(field, tokens, byte_level, pieces):
    name = json.loads((tokens / "tokens.json").read_text())["tokenizer"]["name"]
    message = f"its tokens are those of another tokenizer, {name}: take that one, or make them again with this one"
    assert ("other-tokens", message) in faults(tokens, pieces, field)


def damage(tokens, what):
    index, content = tokens / "train.idx", tokens / "train.bin"
    if what == "no tokens":
        content.unlink()
    elif what == "cut tokens":
        content.write_bytes(content.read_bytes()[:-2])
    elif what == "cut index":
        index.write_bytes(index.read_bytes()[:-3])
    elif what == "short index":
        index.write_bytes(b"MMIDI")
    elif what == "no index":
        index.write_bytes(b"{" * 99)
    elif what == "other type":
        data = bytearray(index.read_bytes())
        data[17] = 6  # float64
        index.write_bytes(data)
    elif what == "origin":
        (tokens / "tokens.json").write_text("[")
    elif what == "large":
        (tokens / "tokens.json").unlink()
        array = np.fromfile(content, dtype=np.uint16)
        array[3] = 9999
        array.tofile(content)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no tokens", "train.bin: cannot be read: No such file or directory: it holds the tokens of train.idx"),
        ("cut tokens", "and train.idx says otherwise: it is truncated or damaged"),
        ("cut index", "bytes, expected"),
        ("short index", "is no index of Megatron's"),
        ("no index", "is no index of Megatron's"),
        ("other type", "has version 1 and tokens of type 6: expected version 1, and type 4 or 8"),
        ("origin", "tokens.json: cannot be read"),
        ("large", "it holds the token 9,999, and the tokenizer has 601: it was made with another one"),
    ],
)
def test_damaged_files(what, message, tokens, byte_level):
    damage(tokens, what)
    (found,) = faults(tokens, byte_level)
    assert message in found[1]


def test_a_change_of_the_tokens_is_a_change_of_the_data(tokens, byte_level):
    recipe = build(recipe_of(tokens, byte_level))
    before = fingerprints(recipe, "data.data_path")
    array = np.fromfile(tokens / "train.bin", dtype=np.uint16)
    array[0] += 1
    array.tofile(tokens / "train.bin")
    after = fingerprints(recipe, "data.data_path")
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]


def test_a_container_sees_the_tokens_beside_the_index(tokens, byte_level):
    assert tokens in input_paths(recipe_of(tokens, byte_level))


def test_a_resume_tells_of_another_length(tokens, byte_level):
    saved = recipe_of(tokens, byte_level)
    longer = recipe_of(tokens, byte_level)
    longer.trainer.max_steps = 200
    weighed = recipe_of(tokens, byte_level, blend=[1.0, 1.0])

    def notes(recipe):
        return " ".join(resume_notes(build(saved), build(recipe), step=5, metrics={}))

    assert "indexed datasets are drawn for the length of a training, which is another now" in notes(longer)
    assert "drawn" not in notes(weighed)
    assert "changed: data.blend" in notes(weighed)


def test_recipes_saved_before_there_were_blends_are_read(tokens, byte_level, tmp_path):
    recipe = recipe_of(tokens, byte_level)
    text = recipe_to_yaml(recipe)
    assert "blend" in text
    (tmp_path / "old.yaml").write_text("".join(line for line in text.splitlines(True) if "blend" not in line))
    assert build(load_recipe(tmp_path / "old.yaml")) == build(recipe)


def test_a_folder_is_no_file(tokens, byte_level):
    recipe = build(recipe_of(tokens, byte_level, data_path=str(tokens)))
    assert ("file-kind", "is a folder, expected a file") in [
        (found.code, found.message) for found in check_files(recipe)
    ]
