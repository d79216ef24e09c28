"""Samples of indexed datasets, against Megatron's own builder and windows cut by hand."""

import itertools
import multiprocessing
import shutil
import warnings

import numpy as np
import pytest
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from neva_model.data import build_train_loader, count_samples
from neva_model.data.blend import BlendedSamples
from neva_model.data.text import TextDataset
from neva_model.tokenizers import load_tokenizer
from neva_recipes import gpt
from neva_recipes.config import DataError, build
from neva_recipes.sources.records import scan_texts
from neva_recipes.token_data import make_token_data
from tests.token_data.reading import documents_of
from tests.tokenizers.texts import english_lines, made_lines

LENGTH, SEED = 32, 5


@pytest.fixture(scope="module")
def corpora(byte_level, tmp_path_factory):
    """Two corpora as indexed datasets."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, lines in (("old", english_lines()), ("new", made_lines("latin", 300))):
        (folder / f"{name}.txt").write_text("\n".join(lines))
        make_token_data(
            [folder / f"{name}.txt"], folder / name, tokenizer=byte_level, json_keys=["text"], append_eod=True
        )
    return folder


class Tokenizer:
    """What Megatron's configuration asks for, with a token for padding that is none."""

    pad, eod, vocab_size = -1, 600, None
    unique_identifiers = ()


def megatrons(names, weights, count, folder):
    """Return what Megatron's builder draws for a training of a number of samples."""
    folder = shutil.copytree(names[0].parents[1], folder)  # it writes its indices beside the data
    prefixes = [str(folder / name.parent.name / "train") for name in names]
    config = GPTDatasetConfig(
        random_seed=SEED,
        sequence_length=LENGTH,
        blend=(prefixes, weights),
        split="1,0,0",
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return BlendedMegatronDatasetBuilder(GPTDataset, [count, 0, 0], lambda: True, config).build()[0]


def opened(names, tokenizer, weights, count, cache):
    files = [TextDataset(str(name), LENGTH, load_tokenizer(str(tokenizer), vocab_size=None), cache) for name in names]
    return BlendedSamples(files, weights, sequence_length=LENGTH, count=count, seed=SEED, cache_folder=cache)


@pytest.mark.parametrize("weights", [[0.7, 0.3], [1.0, 9.0], None])
def test_samples_are_those_of_megatrons_builder(weights, corpora, byte_level, tmp_path):
    names = [corpora / "old" / "train.idx", corpora / "new" / "train.idx"]
    tokens = [sum(map(len, documents_of(name.parent))) for name in names]
    shares = weights or [float(count) for count in tokens]
    theirs = megatrons(names, shares, 600, tmp_path / "theirs")  # several epochs of both
    ours = opened(names, byte_level, weights, 600, tmp_path / "cache")
    again = opened(names, byte_level, weights, 600, tmp_path / "cache")
    for number in range(600):
        expected = theirs[number]
        for sample in (ours.load(number), again.load(number)):
            assert torch.equal(sample.tokens, expected["tokens"])
            assert torch.equal(sample.labels, expected["labels"])
    assert (expected["loss_mask"] == 1).all()


def test_one_file_is_drawn_without_a_blend(corpora, byte_level, tmp_path):
    name = corpora / "new" / "train.idx"
    theirs = megatrons([name], None, 200, tmp_path / "theirs")
    ours = opened([name], byte_level, None, 200, tmp_path / "cache")
    assert all(torch.equal(ours.load(number).tokens, theirs[number]["tokens"]) for number in range(200))


def test_an_epoch_has_each_token_once(corpora, byte_level, tmp_path):
    name = corpora / "new" / "train.idx"
    tokens = list(itertools.chain(*documents_of(corpora / "new")))
    count = (len(tokens) - 1) // LENGTH
    ours = opened([name], byte_level, None, count, tmp_path / "cache")
    seen = torch.cat([ours.load(number).labels for number in range(count)])
    # Documents are shuffled; what does not fill a last sample is left for the next epoch.
    kept = np.bincount(seen.numpy(), minlength=601)
    assert (kept <= np.bincount(tokens, minlength=601)).all()
    assert kept.sum() == count * LENGTH


def test_windows_in_the_order_of_the_file(corpora, byte_level, tmp_path):
    tokens = list(itertools.chain(*documents_of(corpora / "old")))
    windows = TextDataset(
        str(corpora / "old" / "train.idx"), LENGTH, load_tokenizer(str(byte_level), vocab_size=None), tmp_path
    )
    assert torch.cat([windows.load(number).labels for number in range(len(windows))]).tolist() == tokens[1:]
    assert list(tmp_path.iterdir()) == [], "tokens are read where they are"


def test_tokens_of_another_tokenizer_are_refused(corpora, pieces, tmp_path):
    with pytest.raises(DataError, match=r"train\.idx: its tokens are those of another tokenizer, .*english"):
        opened([corpora / "old" / "train.idx"], pieces, None, 10, tmp_path)


def test_the_file_of_tokens_is_named_by_its_index(corpora):
    for path in (corpora / "old" / "train.bin", corpora / "new" / "train.bin"):
        with pytest.raises(DataError, match=r"train\.bin: holds the tokens of an indexed dataset: name train\.idx"):
            next(scan_texts(path))


def test_tokens_of_unknown_origin_are_compared_with_the_size(corpora, byte_level, pieces, tmp_path):
    copy = shutil.copytree(corpora / "old", tmp_path / "old")
    (copy / "tokens.json").unlink()
    opened([copy / "train.idx"], byte_level, None, 10, tmp_path / "cache")
    tokens = np.fromfile(copy / "train.bin", dtype=np.uint16)
    tokens[7] = 700
    tokens.tofile(copy / "train.bin")
    with pytest.raises(DataError, match="it holds the token 700, and the tokenizer has 601: it was made with another"):
        opened([copy / "train.idx"], byte_level, None, 10, tmp_path / "cache")


def recipe_of(corpora, byte_level, **fields):
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path = [str(corpora / "old" / "train.idx"), str(corpora / "new" / "train.idx")]
    recipe.data.blend = [0.7, 0.3]
    recipe.data.tokenizer = str(byte_level)
    recipe.data.sequence_length, recipe.data.global_batch_size, recipe.data.micro_batch_size = LENGTH, 4, 2
    recipe.data.num_workers = 0
    recipe.trainer.max_steps, recipe.trainer.seed = 20, SEED
    recipe.model.language.vocab_size = 601
    for name, value in fields.items():
        setattr(recipe.data, name, value)
    return build(recipe)


def test_a_resumed_loader_goes_on_with_the_next_sample(corpora, byte_level, tmp_path):
    recipe = recipe_of(corpora, byte_level)
    tokenizer = load_tokenizer(str(byte_level), vocab_size=None)
    theirs = megatrons([corpora / name / "train.idx" for name in ("old", "new")], [0.7, 0.3], 80, tmp_path / "theirs")

    def rows(consumed, rank, ranks):
        loader = build_train_loader(
            recipe,
            tokenizer,
            run_dir=tmp_path / "run",
            data_parallel_rank=rank,
            data_parallel_size=ranks,
            consumed_samples=consumed,
            pad_to_multiple_of=1,
        )
        return [[row.tolist() for micro in step for row in micro["tokens"]] for step in loader]

    expected = [theirs[number]["tokens"].tolist() for number in range(80)]
    steps = [expected[start : start + 4] for start in range(0, 80, 4)]
    assert rows(0, 0, 1) == steps
    assert rows(12, 0, 1) == steps[3:]
    assert [one + two for one, two in zip(rows(0, 0, 2), rows(0, 1, 2), strict=True)] == steps


def test_an_epoch_counts_the_windows_of_all_files(corpora, byte_level, tmp_path):
    counts = count_samples(
        recipe_of(corpora, byte_level), load_tokenizer(str(byte_level), vocab_size=None), run_dir=tmp_path
    )
    tokens = [sum(map(len, documents_of(corpora / name))) for name in ("old", "new")]
    assert counts.one_pass == counts.usable == sum(-(-(count - 1) // LENGTH) for count in tokens)


def _open(folder, tokenizer, cache, results):
    names = [folder / name / "train.idx" for name in ("old", "new")]
    samples = opened(names, tokenizer, [0.5, 0.5], 400, cache)
    results.put([samples.load(number).tokens.sum().item() for number in range(400)])


@pytest.mark.multiprocess
def test_processes_share_an_index(corpora, byte_level, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=_open, args=(corpora, byte_level, tmp_path / "cache", results)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found.count(found[0]) == 4
    assert len(list((tmp_path / "cache").glob("*.indices"))) == 2
    assert len(list((tmp_path / "cache").glob("*.blend.npy"))) == 1
    assert not list((tmp_path / "cache").glob("*unfinished*"))
