"""Lengths of samples and rows against what the training loader makes of the same file; assumptions by hand."""

import dataclasses
import json
import random

import pytest
from PIL import Image

from neva_model.data import build_train_loader
from neva_model.data.llava import LlavaDataset
from neva_model.data.sample import BadSample
from neva_model.tokenizers import load_tokenizer
from neva_recipes import gpt, llava
from neva_recipes.config import TextDataConfig, build
from neva_recipes.plan.cost.rows import row_multiple
from neva_recipes.plan.data.lengths import lengths_of, sample_lengths, sequence_lengths
from tests.data.inputs import CORPUS, byte_level_directory, llama_directories, make_recipe, sentencepiece_model
from tests.plan.test_files import write_tokenizer

__all__ = ["byte_level_directory", "llama_directories", "make_recipe", "sentencepiece_model"]

COUNT = 450


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Conversations of very different lengths, two of three with an image, some too long, one bad."""
    path, draw = tmp_path_factory.mktemp("lengths"), random.Random(3)
    Image.new("RGB", (8, 8)).save(path / "a.png")
    samples = []
    for number in range(COUNT):
        has_image, turns = number % 3 > 0, []
        for turn in range(draw.choice([1, 1, 1, 2, 3])):
            mark = "<image>\n" if has_image and turn == 0 else ""
            turns.append({"from": "human", "value": mark + draw.choice(CORPUS)})
            turns.append({"from": "gpt", "value": " ".join(draw.choices(CORPUS, k=draw.choice([1, 1, 2, 5])))})
        samples.append({"id": number, "conversations": turns} | ({"image": "a.png"} if has_image else {}))
    samples[7]["conversations"] = []
    (path / "chats.json").write_text(json.dumps(samples))
    (path / "chats.jsonl").write_text("\n".join(map(json.dumps, samples)))
    (path / "captions.json").write_text(
        json.dumps(
            [
                {
                    "image": "a.png",
                    "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": text}],
                }
                for text in draw.choices(CORPUS, k=60)
            ]
        )
    )
    return path


def trained(recipe, tokenizer, tmp_path, steps):
    """Return the mean of sample and row lengths over some steps of training."""
    loader = build_train_loader(
        recipe,
        tokenizer,
        run_dir=tmp_path,
        data_parallel_rank=0,
        data_parallel_size=1,
        consumed_samples=0,
        pad_to_multiple_of=row_multiple(recipe, on_gpu=False),
    )
    tokens = rows = padded = 0
    for step, _ in zip(loader, range(steps), strict=False):
        for microbatch in step:
            tokens += int(microbatch["num_tokens"])
            rows += len(microbatch["tokens"])
            padded += microbatch["tokens"].numel()
    return tokens / rows, padded / rows


@pytest.mark.parametrize("place", ["sentencepiece_model", "byte_level_directory", "llama"])
@pytest.mark.parametrize("file", ["chats.json", "chats.jsonl"])
def test_lengths_are_those_of_training(request, make_recipe, folder, tmp_path, llama_directories, place, file):
    path = str(llama_directories[False] if place == "llama" else request.getfixturevalue(place))
    recipe = make_recipe(
        data_path=str(folder / file), tokenizer=path, sequence_length=220, on_bad_sample="skip", micro_batch_size=1
    )
    found = sequence_lengths(recipe)
    dataset = LlavaDataset(
        recipe.data, recipe.data.data_path, recipe.model.vision, load_tokenizer(path, vocab_size=None), tmp_path
    )
    samples, bad = [], 0
    for position in range(COUNT):
        try:
            samples.append(dataset.load(position))
        except BadSample:
            bad += 1
    assert found.measured and found.samples == COUNT
    assert found.tokens == pytest.approx(sum(len(sample.tokens) for sample in samples) / len(samples))
    assert (
        found.truncated == pytest.approx(sum(sample.truncated for sample in samples) / len(samples)) and found.truncated
    )
    assert found.images == pytest.approx(sum(sample.image is not None for sample in samples) / len(samples))
    assert bad and f"{bad} of them unusable" in found.source


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("micro", [1, 4, 16])
def test_rows_are_those_of_training(make_recipe, folder, tmp_path, sentencepiece_model, grouped, micro):
    recipe = make_recipe(
        data_path=str(folder / "chats.json"),
        tokenizer=str(sentencepiece_model),
        trainer={"max_steps": 1, "accelerator": "cpu"},
        sequence_length=900,
        on_bad_sample="skip",
        micro_batch_size=micro,
        global_batch_size=32,
        group_by_modality_length=grouped,
    )
    tokenizer = load_tokenizer(str(sentencepiece_model), vocab_size=None)
    tokens, padded = trained(recipe, tokenizer, tmp_path, steps=60)
    found = sequence_lengths(recipe)
    assert found.tokens == pytest.approx(tokens, rel=0.01)
    assert found.padded == pytest.approx(padded, rel=0.03)
    # What was read once serves other batch sizes too.
    other = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, micro_batch_size=32))
    assert lengths_of(other, sample_lengths(recipe)) == sequence_lengths(other)


def test_captions(make_recipe, folder, tmp_path, sentencepiece_model):
    recipe = make_recipe(
        data_path=str(folder / "captions.json"),
        tokenizer=str(sentencepiece_model),
        conv_template="plain",
        micro_batch_size=4,
        global_batch_size=4,
    )
    tokens, _ = trained(recipe, load_tokenizer(str(sentencepiece_model), vocab_size=None), tmp_path, steps=15)
    assert sequence_lengths(recipe).tokens == pytest.approx(tokens)


@pytest.mark.parametrize("name", ["words.txt", "words.jsonl"])
def test_the_number_of_text_rows(make_recipe, tmp_path, sentencepiece_model, name):
    path = tmp_path / name
    lines = [json.dumps({"text": text}) if name.endswith("jsonl") else text for text in CORPUS]
    path.write_text("\n".join(lines) + "\n\n")
    recipe = make_recipe(
        TextDataConfig, data_path=str(path), tokenizer=str(sentencepiece_model), sequence_length=64, global_batch_size=1
    )
    loader = build_train_loader(
        recipe,
        load_tokenizer(str(sentencepiece_model), vocab_size=None),
        run_dir=tmp_path,
        data_parallel_rank=0,
        data_parallel_size=1,
        consumed_samples=0,
        pad_to_multiple_of=1,
    )
    found = sequence_lengths(recipe)
    assert (found.samples, found.tokens, found.padded) == (loader.num_samples, 64.0, 64.0)


def test_without_a_tokenizer_tokens_are_estimated(make_recipe, folder, sentencepiece_model):
    recipe = make_recipe(data_path=str(folder / "chats.json"), tokenizer="owner/name", sequence_length=10_000)
    found = sequence_lengths(recipe)
    assert found.measured and "estimated as 4 characters" in found.source
    # The system text and <s> once, the names and </s> for every exchange, 4 tokens of an image.
    samples = json.loads((folder / "chats.json").read_text())
    del samples[7]
    expected = 0.0
    for sample in samples:
        turns = sample["conversations"]
        characters = sum(len(turn["value"].removeprefix("<image>")) for turn in turns)
        exchanges = len(turns) // 2
        around = len("USER:  ASSISTANT: ") * exchanges
        expected += (characters + around) / 4 + 4 * ("image" in sample) + 1 + exchanges
    system = len(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    )
    expected = expected / len(samples) + system / 4
    assert found.tokens == pytest.approx(expected, abs=0.6)


def test_what_is_assumed_without_a_file():
    """608 tokens of stage 1 and about 1000 of stage 2, 576 of them the image's; text fills its rows."""
    for name, recipe, tokens in (("stage 1", llava.pretrain(), 608), ("stage 2", llava.finetune(), 1000)):
        found = sequence_lengths(build(recipe))
        assert found.tokens == pytest.approx(tokens, rel=0.02), name
        assert not found.measured and found.samples is None and "assumed" in found.source
        assert found.tokens < found.padded < 1.2 * tokens and found.images == 1
    found = sequence_lengths(build(gpt.pretrain()))
    assert (found.tokens, found.padded, found.images, found.truncated) == (4096, 4096, 0, 0)


def test_a_file_that_cannot_be_used_is_as_good_as_none(tmp_path):
    (tmp_path / "broken.json").write_text("[{")
    recipe = llava.finetune()
    recipe.data.data_path = str(tmp_path / "broken.json")
    assert not sequence_lengths(build(recipe)).measured


def test_a_tokenizer_without_the_tokens_of_the_template_leaves_an_estimate(make_recipe, folder, tmp_path):
    write_tokenizer(tmp_path / "tokens", specials=["</s>"])
    with_it, without = (
        make_recipe(data_path=str(folder / "chats.json"), tokenizer=name)
        for name in (str(tmp_path / "tokens"), "owner/name")
    )
    assert sequence_lengths(with_it) == sequence_lengths(without) and sequence_lengths(with_it).measured


@pytest.mark.parametrize(
    ("parallel", "fp8", "multiple"),
    [
        ({}, None, 8),
        ({"tensor_model_parallel_size": 4, "sequence_parallel": True}, None, 8),
        ({"context_parallel_size": 2}, None, 8),
        ({"context_parallel_size": 8}, None, 16),
        ({}, "hybrid", 16),
        ({"tensor_model_parallel_size": 2, "sequence_parallel": True}, "hybrid", 32),
    ],
)
def test_rows_are_rounded_up(parallel, fp8, multiple):
    recipe = llava.finetune()
    for name, value in parallel.items():
        setattr(recipe.parallel, name, value)
    recipe.parallel.sequence_parallel = parallel.get("sequence_parallel", False)
    recipe.precision.fp8 = fp8
    assert row_multiple(build(recipe), on_gpu=True) == multiple
