"""The plan says of a compressed file what it says of it uncompressed, and of a large one what its begin tells."""

import gzip
import json
import lzma
import random
import re
import tarfile

import pytest
from PIL import Image

from neva_recipes import gpt, llava
from neva_recipes.config import build
from neva_recipes.plan.data import data_files, record_check, sampling, walk
from neva_recipes.plan.data.data_files import check_data_files
from neva_recipes.plan.data.files import records_checked
from neva_recipes.plan.data.lengths import sample_lengths
from neva_recipes.plan.data.sampling import sample_file
from neva_recipes.sources import json_array
from neva_recipes.sources.content import open_part


def chat(number, **changes):
    turns = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": f"A word {'é' * (number % 9)}"},
    ]
    return {"id": str(number), "image": "a.png", "conversations": turns} | changes


def array(*records):
    return json.dumps(records).encode()


def lines(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an image, which is the current one."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    return tmp_path


def recipe_of(name, *, text=False):
    recipe = gpt.pretrain("tiny") if text else llava.finetune("tiny")
    recipe.data.data_path, recipe.data.tokenizer = name, "owner/name"
    return build(recipe)


def said(recipe):
    findings = [finding.line() for finding in check_data_files(recipe, "data.data_path")]
    return findings, records_checked(recipe), sample_lengths(recipe)


SILENT = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": ""}]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.json", array(*map(chat, range(700))), False),
        ("a.JSONL", lines(*map(chat, range(700))), False),
        ("a.jsonl", lines(chat(0), chat(1, conversations=[]), chat(2, conversations=SILENT)), False),
        ("a.json", array(chat(0), chat(1, image="gone.png"), chat(2, video="a.mp4")), False),
        ("a.json", array(chat(0), chat(1))[:-2], False),
        ("a.jsonl", lines(chat(0), chat(1))[:-4], False),
        ("a.json", b"", False),
        ("a.json", b"\xff", False),
        ("a.txt", b"One document.\nAnother.\n" * 100, True),
        ("a.jsonl", b'{"text": "One."}\n' * 100, True),
        ("a.jsonl", b'{"text": "One."}\n' * 100 + b'{"text"', True),
        ("a.txt", b"\xff\xfe", True),
        ("a.json", b'[{"text": "One."}]', True),
        ("a.txt", b" \n", True),
    ],
)
def test_what_is_said_is_what_is_said_of_the_file_uncompressed(folder, name, content, text):
    (folder / name).write_bytes(content)
    packed = f"{name}.gz"
    half = len(content) // 2
    (folder / packed).write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))
    expected, checked, lengths = said(recipe_of(name, text=text))
    found = said(recipe_of(packed, text=text))
    assert [line.replace(packed, name) for line in found[0]] == expected
    assert found[1].replace(packed, name) == checked
    assert repr(found[2]).replace(packed, name) == repr(lengths)
    # Nor is the name what tells that a file is compressed.
    (folder / name).write_bytes((folder / packed).read_bytes())
    assert said(recipe_of(name, text=text)) == (expected, checked, lengths)


PACKED = gzip.compress(array(*map(chat, range(50))), mtime=0)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PACKED[:-9], "the compressed file ends too early: it is truncated"),
        (PACKED[:5], "the compressed file ends too early: it is truncated"),
        (PACKED[:-8] + b"1234" + PACKED[-4:], "the compressed file is damaged"),
        (PACKED[:10] + b"\xff" * 9 + PACKED[19:], "the compressed file is damaged"),
        (PACKED + b"and more", "the compressed file is damaged"),
        (lzma.compress(b"[]"), "is compressed with xz: unpack it first, with unxz -k"),
        (gzip.compress(lzma.compress(b"[]"), mtime=0), "is compressed with gzip, and within that with xz: unpack"),
    ],
)
def test_a_damaged_archive_is_an_error_that_names_file_and_field(folder, content, reason, text):
    name = "a.jsonl.gz" if text else "a.json.gz"
    (folder / name).write_bytes(content)
    ((line,), *_) = said(recipe_of(name, text=text))
    assert line.startswith(f"data.data_path={name}: {reason}") and "\n" not in line
    (folder / "b.json").write_bytes(array(chat(0)))
    ((line,), *_) = said(recipe_of([name, "b.json"]))
    assert line.startswith("data.data_path=") and f"{name}: {reason}" in line


def test_a_tar_archive_is_refused(folder):
    with tarfile.open("a.tar.gz", "w:gz") as archive:
        archive.add("a.png")
    for text in (False, True):
        ((line,), *_) = said(recipe_of("a.tar.gz", text=text))
        assert line.startswith("data.data_path=a.tar.gz: is a tar archive: unpack it first, with tar -xf")


@pytest.mark.parametrize("name", ["large.json.gz", "large.jsonl.gz"])
def test_of_a_large_file_the_begin_is_looked_at(folder, monkeypatch, name):
    count = 6000
    # Words that no compression makes short, so that the archive is long as well.
    draw = random.Random(0)
    records = [chat(number, words=draw.randbytes(40).hex()) for number in range(count)]
    records[10] |= {"video": "a.mp4"}
    content = lines(*records) if name.endswith("l.gz") else array(*records)
    size = len(content)
    # It is cut off where only whoever unpacks all of it can know.
    packed = gzip.compress(content, 1)
    (folder / name).write_bytes(packed[:-9])
    monkeypatch.setattr(record_check, "_SECONDS", 0.0)
    monkeypatch.setattr(record_check, "_SMALL", size // 4)
    monkeypatch.setattr(data_files, "_UNPACKED", size // 4)
    monkeypatch.setattr(sampling, "_SMALL", size // 4)
    monkeypatch.setattr(json_array, "_WINDOW", 2**16)
    ((line,), checked, lengths) = said(recipe_of(name))
    looked_at, total = re.fullmatch(
        rf"([\d,]+) of about ([\d,]+) records of {re.escape(name)} and .*", checked
    ).groups()
    seen = count * walk._WINDOW / size
    assert int(looked_at.replace(",", "")) == pytest.approx(seen, rel=0.05)
    assert int(total.replace(",", "")) == pytest.approx(count, rel=0.1)
    assert f"data.data_path={name}: sample 10: has video" in line
    assert f" samples of {name}, from its begin, 1 of them unusable, " in lengths.source
    assert lengths.source.endswith("number of samples estimated from its size")
    assert lengths.total == pytest.approx(count, rel=0.1)
    sample = sample_file(folder / name, 100, lines=name.endswith("l.gz"))
    numbers = [int(json.loads(record)["id"]) for record in sample.records]
    assert len(numbers) == 100 and numbers == sorted(numbers) and numbers[-1] < count / 4
    assert (sample.exact, sample.from_begin) == (False, True)
    # With all the time it takes, all of it is unpacked, and found to be cut off.
    monkeypatch.setattr(record_check, "_SECONDS", 3600.0)
    record_check._check.cache_clear()
    ((line,), *_) = said(recipe_of(name))
    assert "the compressed file ends too early" in line
    (folder / name).write_bytes(packed)
    assert said(recipe_of(name))[1] == f"all {count:,} records of {name} and the headers of 1 image"


def test_every_sample_of_a_small_file_is_looked_at(folder, monkeypatch):
    monkeypatch.setattr(record_check, "_SECONDS", 0.0)
    content = array(*map(chat, range(700)))
    assert walk._WINDOW < len(content) < record_check._SMALL
    (folder / "a.json.gz").write_bytes(gzip.compress(content))
    assert said(recipe_of("a.json.gz"))[1] == "all 700 records of a.json.gz and the headers of 1 image"


@pytest.mark.parametrize("limit", [2**16, 2**18, 2**20, 2**22])
def test_how_long_a_content_is_shows_from_its_begin(folder, limit):
    content = random.Random(0).randbytes(2**20).hex().encode()
    (folder / "a.txt.gz").write_bytes(gzip.compress(content, 1))
    with open_part(folder / "a.txt.gz", limit) as part:
        assert part.file.read() == content[: part.size]
        assert part.is_whole == (limit > len(content)) == (part.size == len(content))
        assert part.is_whole or limit < part.size < len(content)
        assert part.total == (len(content) if part.is_whole else pytest.approx(len(content), rel=0.2))


def test_the_end_of_a_large_text_is_not_looked_at(folder):
    """More than is unpacked of a compressed file, in an archive of which the end is missing."""
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "One."}\n' * 400_000)[:-9])
    assert said(recipe_of("a.jsonl.gz", text=True))[0] == []
