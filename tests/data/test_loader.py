"""Loaders, from files to microbatches: the same samples whatever the workers, ranks and interruptions."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from neva_model.data import build_train_loader, build_validation_loader, count_samples
from neva_recipes.config import DataError, RecipeError, TextDataConfig

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def write_samples(folder: Path, count: int, *, bad: dict[int, dict] | None = None, name="data.json") -> Path:
    """Write samples whose answer says their position; every third is without an image."""
    records = []
    for position in range(count):
        question = "What is shown?" if position % 3 == 2 else "<image>\nWhat is shown?"
        answer = f"sample {position} " + " ".join(WORDS[: position % 5])
        record = {"id": f"id-{position}", "conversations": [{"from": "human", "value": question}]}
        record["conversations"].append({"from": "gpt", "value": answer})
        if position % 3 != 2:
            record["image"] = f"{position}.png"
            Image.new("RGB", (10 + position, 30), (position, 0, 0)).save(folder / record["image"])
        records.append(record | (bad or {}).get(position, {}))
    path = folder / name
    path.write_text(json.dumps(records))
    return path


def positions(microbatches, tokenizer):
    """Return which samples the rows hold, from the words of their answers; filler rows hold none."""
    found = []
    for microbatch in microbatches:
        for labels in microbatch["labels"].tolist():
            text = tokenizer.decode(labels)
            found += [int(number) for number in re.findall(r"sample (\d+)", text)]
    return found


def flat(steps):
    return [microbatch for step in steps for microbatch in step]


@pytest.fixture
def load(tmp_path, byte_level_tokenizer):
    """Return a function that opens the training loader of a recipe."""

    def open_loader(recipe, *, rank=0, ranks=1, consumed=0, multiple=1):
        return build_train_loader(
            recipe,
            byte_level_tokenizer,
            run_dir=tmp_path / "run",
            data_parallel_rank=rank,
            data_parallel_size=ranks,
            consumed_samples=consumed,
            pad_to_multiple_of=multiple,
        )

    return open_loader


@pytest.fixture
def validate(tmp_path, byte_level_tokenizer):
    """Return a function that opens the validation loader of a recipe."""

    def open_loader(recipe, *, rank=0, ranks=1, multiple=1):
        return build_validation_loader(
            recipe,
            byte_level_tokenizer,
            run_dir=tmp_path / "run",
            data_parallel_rank=rank,
            data_parallel_size=ranks,
            pad_to_multiple_of=multiple,
        )

    return open_loader


def equal(left, right):
    return all(
        set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(flat(left), flat(right), strict=True)
    )


def test_a_microbatch_is_padded_rows_and_its_images(tmp_path, load, make_recipe, byte_level_tokenizer):
    path = write_samples(tmp_path, 6)
    recipe = make_recipe(
        data_path=str(path), global_batch_size=6, micro_batch_size=3, dataloader_type="single", image_aspect_ratio="pad"
    )
    ((first, second),) = list(load(recipe, multiple=16))
    assert positions([first, second], byte_level_tokenizer) == [0, 1, 2, 3, 4, 5]
    for microbatch in (first, second):
        tokens, labels = microbatch["tokens"], microbatch["labels"]
        assert tokens.dtype == labels.dtype == microbatch["position_ids"].dtype == torch.int64
        assert tokens.shape == labels.shape == microbatch["position_ids"].shape
        assert tokens.shape[1] % 16 == 0
        # No position is beyond the longest sample: angles may depend on the largest one.
        longest = int(tokens.any(0).nonzero().max()) + 1
        assert torch.equal(
            microbatch["position_ids"], torch.arange(tokens.shape[1]).clamp(max=longest - 1).expand(3, -1)
        )
        assert microbatch["images"].shape == (2, 3, 28, 28)
        assert [(row == -200).sum().item() for row in tokens] == [4, 4, 0]
        lengths = [int(row.nonzero().max()) + 1 for row in tokens]
        assert microbatch["num_tokens"] == sum(lengths)
        assert max(lengths) > tokens.shape[1] - 16
        for row, length in enumerate(lengths):
            assert (labels[row, length - 1 :] == -100).all()
    # Images come in the order of their rows: their red channel grows with the position.
    reds = torch.cat([first["images"], second["images"]])[:, 0, 14, 14]
    assert (reds.diff() > 0).all()


def test_rows_without_images_have_an_empty_image_tensor(tmp_path, load, make_recipe):
    path = write_samples(tmp_path, 3)
    recipe = make_recipe(data_path=str(path), global_batch_size=1, micro_batch_size=1, dataloader_type="single")
    images = [step[0]["images"].shape for step in load(recipe)]
    assert images == [(1, 3, 28, 28), (1, 3, 28, 28), (0, 3, 28, 28)]


@pytest.mark.parametrize("grouped", [False, True])
def test_workers_ranks_and_interruptions_change_nothing(tmp_path, load, make_recipe, byte_level_tokenizer, grouped):
    path = write_samples(tmp_path, 14)
    fields = {
        "data_path": str(path),
        "global_batch_size": 4,
        "micro_batch_size": 1,
        "group_by_modality_length": grouped,
    }
    whole = list(islice(load(make_recipe(**fields)), 7))
    assert equal(whole, list(islice(load(make_recipe(**fields, num_workers=2)), 7)))
    assert equal(whole[3:], list(islice(load(make_recipe(**fields, num_workers=1), consumed=12), 4)))
    halves = [list(islice(load(make_recipe(**fields), rank=rank, ranks=2), 7)) for rank in (0, 1)]
    for step, parts in zip(whole, zip(*halves, strict=True), strict=True):
        dealt = [microbatch for turn in zip(*parts, strict=True) for microbatch in turn]
        assert equal([step], [dealt])
    if not grouped:
        assert sorted(positions(flat(whole)[:14], byte_level_tokenizer)) == list(range(14))


def test_the_global_random_state_is_left_alone(tmp_path, load, make_recipe):
    path = write_samples(tmp_path, 4)
    recipe = make_recipe(data_path=str(path), global_batch_size=2, micro_batch_size=1, num_workers=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(islice(load(recipe), 2))
    assert torch.equal(before, torch.get_rng_state())


def test_a_single_pass_has_an_end(tmp_path, load, make_recipe, byte_level_tokenizer):
    path = write_samples(tmp_path, 10)
    fields = {"data_path": str(path), "global_batch_size": 4, "micro_batch_size": 2, "dataloader_type": "single"}
    recipe = make_recipe(**fields, trainer={"max_steps": 2})
    assert positions(flat(load(recipe)), byte_level_tokenizer) == list(range(8))
    assert (
        count_samples(recipe, byte_level_tokenizer, run_dir=tmp_path / "run").one_pass == load(recipe).num_samples == 8
    )
    for trainer in ({"max_steps": 3}, {"max_epochs": 2}):
        with pytest.raises(DataError, match=r"a single pass over 10 samples has 2 steps of 4, but trainer\.max_"):
            load(make_recipe(**fields, trainer=trainer))
    with pytest.raises(DataError, match="has 0 steps of 12"):
        load(make_recipe(**{**fields, "global_batch_size": 12}, trainer={"max_epochs": 1}))


def test_an_epoch_of_cyclic_is_the_whole_file(tmp_path, load, make_recipe, byte_level_tokenizer):
    path = write_samples(tmp_path, 10)
    recipe = make_recipe(data_path=str(path), global_batch_size=4, micro_batch_size=2)
    assert (
        count_samples(recipe, byte_level_tokenizer, run_dir=tmp_path / "run").one_pass == load(recipe).num_samples == 10
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_validation_counts_every_sample_once(tmp_path, validate, make_recipe, byte_level_tokenizer, ranks):
    path = write_samples(tmp_path, 10)
    recipe = make_recipe(validation_data_path=str(path), global_batch_size=8, micro_batch_size=2)
    loaders = [validate(recipe, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert [len(loader) for loader in loaders] == [2] * ranks
    steps = [step for loader in loaders for step in loader]
    assert len(steps) == 2 * ranks
    assert all(microbatch["tokens"].shape[0] == 2 for microbatch in flat(steps))
    assert Counter(positions(flat(steps), byte_level_tokenizer)) == Counter(range(10))
    empty = [microbatch for microbatch in flat(steps) if (microbatch["labels"] == -100).all()]
    assert len(empty) == 3


BAD = {
    1: {"image": "absent.png"},
    4: {"conversations": [{"from": "gpt", "value": "sample 4"}]},
    5: {"conversations": []},
}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_stops_training_with_its_name(tmp_path, load, make_recipe, workers):
    path = write_samples(tmp_path, 8, bad=BAD)
    recipe = make_recipe(
        data_path=str(path), global_batch_size=2, micro_batch_size=1, dataloader_type="single", num_workers=workers
    )
    with pytest.raises(DataError) as raised:
        list(load(recipe))
    absent = f"image file {tmp_path / 'absent.png'} does not exist (image names are relative to data.image_folder)"
    expected = f"{path}: sample 1 (id 'id-1'): {absent}; data.on_bad_sample=skip passes it over"
    assert type(raised.value) is DataError and str(raised.value) == expected
    assert not (tmp_path / "run" / "bad_samples.jsonl").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_replaced_counted_and_named_once(
    tmp_path, load, make_recipe, byte_level_tokenizer, workers, capfd
):
    path = write_samples(tmp_path, 9, bad=BAD)
    recipe = make_recipe(
        data_path=str(path),
        global_batch_size=9,
        micro_batch_size=3,
        dataloader_type="single",
        on_bad_sample="skip",
        num_workers=workers,
        trainer={"max_steps": 1},
    )
    # The next good sample with an image stands in for one with an image, a text for a text.
    for _ in range(2):
        loader = load(recipe)
        assert positions(flat(loader), byte_level_tokenizer) == [0, 3, 2, 3, 6, 8, 6, 7, 8]
        assert loader.skipped_samples == 3
    lines = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert sorted(line["sample"] for line in lines) == [1, 4, 5]
    assert all(line["file"] == str(path) and line["id"] == f"id-{line['sample']}" for line in lines)
    reasons = {line["sample"]: line["reason"] for line in lines}
    assert reasons[4] == "turn 1 is from gpt, expected human: roles must alternate from human on"
    (said,) = capfd.readouterr().out.splitlines()
    assert said.startswith(f"skipped {path}: sample ") and said.endswith("is named in bad_samples.jsonl")


def test_bad_validation_samples_are_left_out(tmp_path, validate, make_recipe, byte_level_tokenizer):
    path = write_samples(tmp_path, 8, bad=BAD)
    recipe = make_recipe(validation_data_path=str(path), global_batch_size=4, micro_batch_size=4, on_bad_sample="skip")
    assert positions(flat(validate(recipe)), byte_level_tokenizer) == [0, 2, 3, 6, 7]


def test_nothing_but_bad_samples_is_an_error(tmp_path, load, make_recipe):
    path = write_samples(tmp_path, 3, bad={position: {"conversations": []} for position in range(3)})
    recipe = make_recipe(data_path=str(path), global_batch_size=1, micro_batch_size=1, on_bad_sample="skip")
    with pytest.raises(DataError, match=r"every sample is bad: see bad_samples\.jsonl"):
        next(iter(load(recipe)))


def test_cut_samples_are_counted(tmp_path, load, make_recipe, byte_level_tokenizer):
    path = write_samples(tmp_path, 5)
    fields = {"data_path": str(path), "global_batch_size": 5, "micro_batch_size": 5, "dataloader_type": "single"}
    ((whole,),) = load(make_recipe(**fields))
    limit = whole["tokens"].shape[1] - 1
    loader = load(make_recipe(**fields, sequence_length=limit))
    ((cut,),) = loader
    lengths = (whole["tokens"] != 0).sum(dim=1)
    assert loader.truncations == (lengths > limit).sum() >= 1
    assert loader.truncated.tolist() == (lengths > limit).tolist()
    assert torch.equal(cut["tokens"], whole["tokens"][:, :limit])


def test_a_sample_that_is_cut_again_and_again_is_one(tmp_path, load, make_recipe):
    path = write_samples(tmp_path, 5)
    fields = {"data_path": str(path), "global_batch_size": 5, "micro_batch_size": 5}
    ((whole,),) = islice(load(make_recipe(**fields)), 1)
    limit = whole["tokens"].shape[1] - 1
    loader = load(make_recipe(**fields, sequence_length=limit))
    list(islice(loader, 3))
    assert loader.truncations == 3 * loader.truncated.sum() >= 3


def test_text_windows_are_shuffled_and_complete(tmp_path, load, validate, make_recipe, byte_level_tokenizer):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{WORDS[n % 9]} is digit number {n}" for n in range(40)))
    recipe = make_recipe(
        TextDataConfig, data_path=str(path), validation_data_path=str(path), sequence_length=32, global_batch_size=2
    )
    count = count_samples(recipe, byte_level_tokenizer, run_dir=tmp_path / "run").one_pass
    epoch = flat(islice(load(recipe), -(-count // 2)))[:count]
    ordered = flat(validate(recipe))[:count]
    rows = [tuple(microbatch["tokens"].flatten().tolist()) for microbatch in epoch]
    in_order = [tuple(microbatch["tokens"].flatten().tolist()) for microbatch in ordered]
    assert Counter(rows) == Counter(in_order) and rows != in_order
    assert all(microbatch["images"].shape[0] == 0 for microbatch in epoch)


def test_a_recipe_without_files_is_refused(load, validate, make_recipe):
    with pytest.raises(RecipeError, match=r"data\.data_path is not set"):
        load(make_recipe())
    with pytest.raises(RecipeError, match=r"data\.validation_data_path is not set"):
        validate(make_recipe())


LOADING_PROCESS = """
import pickle, sys
from neva_model.data import build_train_loader
from neva_model.tokenizers import load_tokenizer

recipe, tokenizer = pickle.loads(open(sys.argv[1], "rb").read())
loader = build_train_loader(
    recipe, load_tokenizer(tokenizer, vocab_size=None), run_dir=sys.argv[2], data_parallel_rank=0, data_parallel_size=1,
    consumed_samples=0, pad_to_multiple_of=1,
)
for step in loader:
    print("step", flush=True)
    sys.stdin.readline()
"""


def test_workers_ignore_their_ranks_signals_and_end_with_it(tmp_path, make_recipe, byte_level_directory):
    path = write_samples(tmp_path, 8)
    recipe = make_recipe(data_path=str(path), global_batch_size=2, micro_batch_size=1, num_workers=2)
    (tmp_path / "arguments").write_bytes(pickle.dumps((recipe, str(byte_level_directory))))
    rank = subprocess.Popen(
        [sys.executable, "-c", LOADING_PROCESS, str(tmp_path / "arguments"), str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    workers = []
    try:
        assert rank.stdout.readline() == "step\n"
        workers = psutil.Process(rank.pid).children()
        assert len(workers) == 2
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            for worker in workers:
                worker.send_signal(number)
        # More steps than were loaded ahead, so the workers have gone on working.
        for _ in range(8):
            rank.stdin.write("\n")
            rank.stdin.flush()
            assert rank.stdout.readline() == "step\n"
    finally:
        rank.kill()
        rank.wait()
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert not alive
