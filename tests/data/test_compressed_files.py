"""A data file compressed with gzip is read as what it unpacks to, and what is wrong with it is said of it."""

import gzip
import itertools
import json
import lzma
import pickle
import re
import resource
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neva_model.data import build_train_loader, count_samples
from neva_model.data.index import SampleIndex, SampleRules
from neva_model.data.llava import LlavaDataset
from neva_model.data.text import TextDataset
from neva_recipes.config import DataError, RunError
from neva_recipes.prompts.templates import get_template

RULES = SampleRules(get_template("v1"), Path("/none"))


def chat(number, **changes):
    turns = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": f"word {number} é\U0001f600"}]
    return {"id": f"id-{number}", "conversations": turns} | changes


def array(records, **options):
    return json.dumps(records, ensure_ascii=False, **options).encode()


def lines(records):
    return b"".join(array(record) + b"\r\n" for record in records)


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
    name=st.sampled_from(["a.json", "a.jsonl", "a.JSONL"]),
    ending=st.sampled_from([".gz", ".GZ"]),
    begin=st.sampled_from(["", "\ufeff", "\n "]),
    cuts=st.lists(st.floats(0, 1), max_size=3),
)
def test_samples_are_those_of_the_file_uncompressed(tmp_path_factory, numbers, name, ending, begin, cuts):
    folder = tmp_path_factory.mktemp("both")
    records = [chat(number, image="gone.png") if number % 3 else chat(number) for number in numbers]
    content = begin.encode() + (array(records, indent=1) if name == "a.json" else lines(records))
    plain, compressed = folder / name, folder / f"{name}{ending}"
    plain.write_bytes(content)
    # Several archives behind each other, some of them empty, as `cat`, bgzip and pigz make them.
    places = [0, *sorted(int(cut * len(content)) for cut in cuts), len(content)]
    members = [content[start:end] for start, end in itertools.pairwise(places)]
    compressed.write_bytes(b"".join(map(gzip.compress, members)))
    expected, found = (SampleIndex(path, folder / "cache", RULES) for path in (plain, compressed))
    assert [found.read(position) for position in range(len(found))] == records
    for values in ("words", "has_image", "states"):
        assert np.array_equal(getattr(found, values), getattr(expected, values))


def test_an_index_of_a_large_file(tmp_path):
    """Records that lie across whatever is read and unpacked at a time."""
    records = [chat(number, padding="é" * (number % 7000)) for number in range(3000)]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(array(records), 1))
    index = SampleIndex(tmp_path / "a.json.gz", tmp_path / "cache", RULES)
    assert [index.read(position) for position in range(len(index))] == records


WRONG = [
    ("a.json", b""),
    ("a.json", b"[]"),
    ("a.json", b'{"id": 1}'),
    ("a.json", b'[{"id": 1}, {"id": 2,}]'),
    ("a.json", b'[{"id": 1}, {"id": "tw'),
    ("a.json", b'[{"id": "\xff"}]'),
    ("a.jsonl", b'{"id": 1}\n\n{"id": \n'),
    ("a.jsonl", b"\n \n"),
]


@pytest.mark.parametrize(("name", "content"), WRONG)
def test_what_is_wrong_with_the_content_is_said_as_of_a_plain_file(tmp_path, name, content):
    said = {}
    for written, data in ((name, content), (f"{name}.gz", gzip.compress(content))):
        (tmp_path / written).write_bytes(data)
        with pytest.raises(DataError) as raised:
            SampleIndex(tmp_path / written, tmp_path / "cache", RULES)
        said[written] = str(raised.value)
    assert said[f"{name}.gz"] == said[name].replace(f"{tmp_path / name}: ", f"{tmp_path / name}.gz: ")


PACKED = gzip.compress(array([chat(number) for number in range(50)]), mtime=0)
DAMAGED = [
    ("a.json.gz", PACKED[:-9], "the compressed file ends too early: it is truncated, get it again"),
    ("a.json.gz", PACKED[: len(PACKED) // 2], "the compressed file ends too early: it is truncated"),
    ("a.json.gz", PACKED[:7], "the compressed file ends too early: it is truncated"),
    ("a.json.gz", PACKED[:2], "the compressed file ends too early: it is truncated"),
    ("a.json.gz", PACKED + PACKED[:30], "the compressed file ends too early: it is truncated"),
    (
        "a.json.gz",
        PACKED[:-8] + b"1234" + PACKED[-4:],
        "the compressed file is damaged, get it again: CRC check failed",
    ),
    ("a.json.gz", PACKED[:-4] + b"1234", "the compressed file is damaged, get it again: Incorrect length"),
    ("a.json.gz", PACKED[:10] + b"\xff" * 9 + PACKED[19:], "the compressed file is damaged, get it again: Error -3"),
    ("a.json.gz", PACKED[:2] + b"\7" + PACKED[3:], "the compressed file is damaged, get it again: Unknown compression"),
    ("a.json.gz", PACKED + b"and more", "the compressed file is damaged, get it again: Not a gzipped file"),
    ("a.json", PACKED[:-9], "the compressed file ends too early: it is truncated"),
    ("a.json.gz", gzip.compress(PACKED, mtime=0), "is compressed with gzip, and within that with gzip: unpack it"),
    ("a.json.gz", lzma.compress(b"[]"), "is compressed with xz: unpack it first, with unxz -k"),
]


@pytest.mark.parametrize(("name", "content", "reason"), DAMAGED)
def test_a_damaged_archive_is_one_line_that_names_it(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {reason}')}") as raised:
            SampleIndex(path, tmp_path / "cache", RULES)
        assert "\n" not in str(raised.value) and "cache" not in str(raised.value)
        assert {entry.suffix for entry in (tmp_path / "cache").iterdir()} == {".lock"}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_archive_is_no_text(tmp_path, byte_level_tokenizer, mode, form):
    (tmp_path / "text.txt").write_text("One document.\n")
    path = tmp_path / "text.tar.gz"
    with tarfile.open(path, mode, format=form) as archive:
        archive.add(tmp_path / "text.txt", "text.txt")
    with pytest.raises(DataError, match=r"text\.tar\.gz: is a tar archive: unpack it first, with tar -xf"):
        TextDataset(str(path), 8, byte_level_tokenizer, tmp_path / "cache")


def test_the_content_counts_and_not_the_name(tmp_path):
    """A download unpacked on the way that has kept its name, and an archive that has lost the end of its own."""
    records = [chat(1), chat(2)]
    (tmp_path / "plain.json.gz").write_bytes(array(records))
    (tmp_path / "plain.jsonl.gz").write_bytes(lines(records))
    (tmp_path / "packed.json").write_bytes(gzip.compress(array(records)))
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(lines(records)))
    for path in tmp_path.glob("*.json*"):
        index = SampleIndex(path, tmp_path / "cache", RULES)
        assert [index.read(position) for position in range(len(index))] == records


def test_no_room_to_unpack(tmp_path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(array([chat(number) for number in range(3000)])))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(RunError) as raised:
            SampleIndex(path, tmp_path / "cache", RULES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert str(raised.value) == f"{path}: cannot be unpacked into {tmp_path / 'cache'}: File too large"
    assert {entry.suffix for entry in (tmp_path / "cache").iterdir()} == {".lock"}
    assert len(SampleIndex(path, tmp_path / "cache", RULES)) == 3000


def test_a_file_is_unpacked_once_and_again_when_it_changes(tmp_path, capfd):
    path, cache = tmp_path / "a.json.gz", tmp_path / "cache"
    path.write_bytes(gzip.compress(array([chat(1)])))
    first = SampleIndex(path, cache, RULES)
    (unpacked,) = cache.glob("*.unpacked")
    assert unpacked.read_bytes() == array([chat(1)])
    # Checked with another template it is not unpacked anew.
    SampleIndex(path, cache, RULES)
    SampleIndex(path, cache, SampleRules(get_template("chatml"), Path("/none")))
    assert capfd.readouterr().out.splitlines() == [f"{path}: is unpacked into {cache}"]
    path.write_bytes(gzip.compress(array([chat(2), chat(3)])))
    second = SampleIndex(path, cache, RULES)
    assert [second.read(0), second.read(1)] == [chat(2), chat(3)]
    # What is in use is what was indexed.
    assert first.read(0) == chat(1)
    unpacked.unlink()
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: sample 0 cannot be read any more"):
        first.read(0)


def test_a_dataset_names_the_file_and_finds_the_images_beside_it(tmp_path, make_recipe, byte_level_tokenizer):
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "good.png")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "It is red."}]
    good = chat(0, image="good.png", conversations=turns)
    bad = chat(1, conversations=[])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines([good, bad])))
    (tmp_path / "a.jsonl").write_bytes(lines([good, bad]))
    recipe = make_recipe()
    compressed, plain = (
        LlavaDataset(recipe.data, str(path), recipe.model.vision, byte_level_tokenizer, tmp_path / "cache")
        for path in (tmp_path / "a.jsonl.gz", tmp_path / "a.jsonl")
    )
    expected = plain.load(0)
    for found in (compressed.load(0), pickle.loads(pickle.dumps(compressed)).load(0)):
        assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.image, expected.image)
    (error,) = compressed.unusable()
    assert str(error).startswith(f"{tmp_path}/a.jsonl.gz: sample 1 (id 'id-1'): conversations is empty")


def test_training_on_compressed_and_plain_files_together(tmp_path, make_recipe, byte_level_tokenizer):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(array([chat(0), chat(1)])))
    (tmp_path / "b.jsonl").write_bytes(lines([chat(2)]))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines([chat(3)])))
    named = ",".join(str(tmp_path / name) for name in ("a.json.gz", "b.jsonl", "c.jsonl.gz"))
    recipe = make_recipe(data_path=named, dataloader_type="single", global_batch_size=2, micro_batch_size=1)
    run = tmp_path / "run"
    assert count_samples(recipe, byte_level_tokenizer, run_dir=run).one_pass == 4
    loader = build_train_loader(
        recipe,
        byte_level_tokenizer,
        run_dir=run,
        data_parallel_rank=0,
        data_parallel_size=1,
        consumed_samples=0,
        pad_to_multiple_of=1,
    )
    answers = "".join(
        byte_level_tokenizer.decode(row) for step in loader for batch in step for row in batch["labels"].tolist()
    )
    assert re.findall(r"word (\d+)", answers) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\ufeffone two\r\n\n  \né three".encode()),
        ("a.jsonl", b'{"text": "one"}\n{"text": "two"}\n'),
    ],
)
def test_texts(tmp_path, byte_level_tokenizer, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    plain, compressed = (
        TextDataset(str(tmp_path / written), 4, byte_level_tokenizer, tmp_path / "cache")
        for written in (name, f"{name}.gz")
    )
    assert len(plain) == len(compressed)
    for position in range(len(plain)):
        assert torch.equal(plain.load(position).tokens, compressed.load(position).tokens)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(DataError, match=rf"{re.escape(name)}\.gz: the compressed file ends too early"):
        TextDataset(str(tmp_path / f"{name}.gz"), 4, byte_level_tokenizer, tmp_path / "cache")
