"""Samples are found in JSON arrays and JSONL of any shape, and what is wrong is named with its place."""

import json
import lzma
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neva_model.data import ImageProcessor, read_image
from neva_model.data.index import SampleIndex, SampleRules
from neva_model.data.llava import LlavaDataset
from neva_recipes.config import DataError
from neva_recipes.prompts.templates import get_template
from neva_recipes.sources import json_array

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
RULES = SampleRules(get_template("v1"), Path("/none"))
# As http://images.cocodataset.org/annotations has them: licenses before images, one line.
COCO = (
    b'{"info": {"description": "COCO 2017 Dataset"}, "licenses": [{"url": "http://a", "id": 1, "name": "A"}], '
    b'"images": [{"license": 4, "file_name": "000000397133.jpg", "height": 427, "width": 640, "id": 397133}], '
    b'"annotations": [{"image_id": 179765, "id": 38, "caption": "A black Honda motorcycle"}]}'
)
RECORDS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    records=RECORDS,
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    begin=st.sampled_from(["", "\ufeff", " \r\n"]),
    window=st.sampled_from([1, 7, 64, 2**20]),
)
def test_every_record_of_an_array_is_found(tmp_path_factory, records, indent, ascii_only, begin, window):
    path = tmp_path_factory.getbasetemp() / "array.json"
    path.write_bytes((begin + json.dumps(records, indent=indent, ensure_ascii=ascii_only)).encode() + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_WINDOW", window)
        found = list(json_array.scan_json_array(path))
    assert [record for _, _, record in found] == records
    content = path.read_bytes()
    assert [json.loads(content[offset : offset + length]) for offset, length, _ in found] == records


@settings(max_examples=50, deadline=None)
@given(records=RECORDS, ascii_only=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_every_record_of_lines_is_found(tmp_path_factory, records, ascii_only, end):
    # A folder for each: what was made of another file of this name, size and tick of the clock would be taken.
    folder = tmp_path_factory.mktemp("lines")
    path = folder / ("lines.JSONL" if ascii_only else "lines.jsonl")
    path.write_bytes(end.join(json.dumps(record, ensure_ascii=ascii_only) for record in records).encode())
    index = SampleIndex(path, folder, RULES)
    assert [index.read(position) for position in range(len(index))] == records


def test_a_truncated_array_is_always_noticed(tmp_path):
    path = tmp_path / "data.json"
    content = json.dumps([{"id": 1, "a": 'x"\u00e9'}, {"id": 2, "b": [1.5, True]}], ensure_ascii=False).encode()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"data\.json: after (1 sample|[02] samples), at byte \d+: "):
            list(json_array.scan_json_array(path))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"", "after 0 samples, at byte 0: expected a JSON array"),
        ("a.json", b'{"id": 1}', "after 0 samples, at byte 0: expected a JSON array"),
        ("a.json", b'{"id": 1}\n{"id": 2}\n', "for one sample a line, use .jsonl"),
        ("a.json", b'"text"', "expected a JSON array"),
        ("a.json", b"[]", "holds no sample"),
        ("a.json", b'[{"id": 1}, 3]', "after 1 sample, at byte 12: expected a sample beginning with {"),
        ("a.json", b'[{"id": 1}, {"id": 2,}]', "after 1 sample, at byte 21: not valid JSON"),
        ("a.json", b'[{"id": 1} {"id": 2}]', "after 1 sample, at byte 11: expected , or ]"),
        ("a.json", b'[{"id": 1}]]', "after 1 sample, at byte 11: expected nothing after the ]"),
        ("a.json", b'[{"id": 1}, {"id": "tw', "after 1 sample, at byte 12: the file ends inside of a sample"),
        ("a.json", b'[{"id": 1},', "after 1 sample, at byte 11: expected a sample"),
        ("a.json", b'[{"id": "\xff"}]', "not UTF-8"),
        ("a.json", b'[{"id":' + b"[" * 100_000, "not valid JSON"),
        ("a.jsonl", b'{"id": 1}\n\n{"id": \n', "line 3 is not valid JSON"),
        ("a.jsonl", b'{"id": 1}\n[2]\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'{"id": 1}\n{"id": "\xff"}\n', "line 2 is not valid JSON"),
        ("a.jsonl", b"\n \n", "holds no sample"),
        ("a.JSONL", b"[2]\n", "line 1 is not a JSON object"),
        ("a.jsonl", lzma.compress(b"{}"), "is compressed with xz: unpack it first, with unxz -k"),
        (
            "a.jsonl",
            b'[\n{"id": 1}\n]\n',
            "line 1 is not valid JSON: Expecting value at column 3: the file begins as a JSON",
        ),
        (
            "a.jsonl",
            b'[{"id": 1}]\n',
            "not a JSON object: the file begins as a JSON array, and an array of samples is read",
        ),
        ("a.json", b'{"version": [1], "data": [{"id": 1}]}', "beginning with [, as in the key 'data': write that"),
        ("a.json", COCO, "this is COCO's format, with images and annotations apart: join them by image_id, and write"),
        (
            "a.json",
            b'{"annotations": [{"image_id": 1, "id": 2, "caption": "a cat"}], "images": []}',
            "this is COCO's format",
        ),
        (
            "a.json",
            b'{"info": {}, "annotations": [{"image_id": 1, "question_id": 2, "answers": []}]}',
            "beginning with [, as in the key 'annotations': write that",
        ),
        ("a.csv", b"photo;question\n", "a table is not read as it is; docs/small_data.md makes samples of one"),
        ("a.json", b'{"messages": [{"role": 1}]}', "beginning with [ (for one sample a line, use .jsonl)"),
        ("a.json", b'{"version": [1, "data": [{"id": 1}]}', "beginning with [ (for one sample a line, use .jsonl)"),
        ("a.json", '[{"id": "\u00e9"}]'.encode("utf-16"), "is not UTF-8 text but UTF-16: save it as UTF-8, as iconv"),
        (
            "a.jsonl",
            '{"id": "\u00e9"}'.encode("latin-1"),
            "not UTF-8 text: invalid continuation byte: save the file as",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(reason)) as raised:
        SampleIndex(tmp_path / name, tmp_path / "cache", RULES)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".npy"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json: cannot be read: No such file"):
        SampleIndex(tmp_path / "nothing.json", tmp_path, RULES)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        SampleIndex(tmp_path, tmp_path / "cache", RULES)


def test_an_index_is_made_once_and_again_when_the_file_changes(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('[{"id": 1}]')
    first = SampleIndex(path, tmp_path, RULES)
    (index,) = tmp_path.glob("*.npy")
    made = index.stat()
    assert len(SampleIndex(path, tmp_path, RULES)) == 1
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    path.write_text('[{"id": 1}, {"id": 2}]')
    assert len(SampleIndex(path, tmp_path, RULES)) == 2
    path.write_text("")
    with pytest.raises(DataError, match="sample 0 cannot be read any more"):
        first.read(0)


def exchange(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.fixture
def write_dataset(tmp_path, make_recipe, byte_level_tokenizer):
    """Return a function that writes records beside a good image and opens them."""

    def write(records, name="data.json", **fields):
        Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "good.png")
        path = tmp_path / name
        path.write_text(json.dumps(records))
        recipe = make_recipe(data_path=str(path), **fields)
        return LlavaDataset(recipe.data, str(path), recipe.model.vision, byte_level_tokenizer, tmp_path / "cache")

    return write


def test_a_sample_is_its_tokens_and_its_image(write_dataset, tmp_path, make_recipe):
    records = [
        {"id": "a", "image": "good.png", "conversations": exchange("<image>\nWhat digit?", "It is a seven.")},
        {"id": "b", "conversations": exchange("What is a user?", "A user")},
    ]
    dataset = write_dataset(records, image_aspect_ratio="pad")
    assert len(dataset) == 2
    assert dataset.has_image.tolist() == [True, False]
    assert dataset.lengths.tolist() == [3 + 4, 4 + 2]
    picture, text = dataset.load(0), dataset.load(1)
    processor = ImageProcessor(make_recipe().model.vision, "pad")
    assert torch.equal(picture.image, processor(read_image(tmp_path / "good.png")))
    assert (picture.tokens == -200).sum() == 4
    assert text.image is None and not (text.tokens == -200).any()


def test_images_are_looked_for_in_the_image_folder(write_dataset, tmp_path):
    folder = tmp_path / "my 'pictures' \u00e9"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a b.png")
    records = [{"image": "a b.png", "conversations": exchange("<image>", "A")}]
    assert write_dataset(records, image_folder=str(folder)).load(0).image is not None


def test_a_dataset_travels_to_a_spawned_worker(write_dataset):
    dataset = write_dataset([{"image": "good.png", "conversations": exchange("<image>\nWhat digit?", "A seven.")}])
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.load(0).tokens, dataset.load(0).tokens)
    assert torch.equal(copy.load(0).image, dataset.load(0).image)


BAD_RECORDS = [
    ({"image": "good.png", "conversations": []}, "conversations is empty"),
    ({"image": "good.png", "conversations": exchange("no mark", "A")}, "no question has <image>"),
    ({"image": "good.png", "conversations": exchange("<image><image>", "A")}, "has 2 <image>"),
    ({"conversations": exchange("<image>", "A")}, "names no image file"),
    ({"image": "absent.png", "conversations": exchange("<image>", "A")}, "absent.png does not exist"),
    (
        {"image": ["good.png", "good.png"], "conversations": exchange("<image>", "A")},
        "expected the name of one image file",
    ),
    ({"image": "", "conversations": exchange("<image>", "A")}, "expected the name of one image file"),
    ({"image": "data.json", "conversations": exchange("<image>", "A")}, "data.json cannot be decoded"),
    ({"conversations": exchange("Q", "A")[::-1]}, "turn 1 is from gpt, expected human"),
    ({"conversations": exchange("Q", "")}, "nothing to learn from"),
    ({"conversations": exchange("Q " * 400, "A")}, "no answer left in the first 300 of"),
    ({"conversations": exchange("Q \ud800", "A")}, "half a surrogate pair"),
    ({}, "conversations is empty or missing"),
]


def test_a_bad_sample_is_named_with_file_position_and_id(write_dataset, tmp_path):
    records = [{"id": f"0{number}", **record} for number, (record, _) in enumerate(BAD_RECORDS)]
    dataset = write_dataset(records, sequence_length=300)
    for position, (_, reason) in enumerate(BAD_RECORDS):
        with pytest.raises(DataError, match=re.escape(reason)) as raised:
            dataset.load(position)
        assert str(raised.value).startswith(f"{tmp_path / 'data.json'}: sample {position} (id '0{position}'): ")
        assert "\n" not in str(raised.value)


def test_a_template_that_the_tokenizer_cannot_write_is_refused_at_once(tmp_path, make_recipe, sentencepiece_tokenizer):
    (tmp_path / "data.json").write_text('[{"id": 1}]')
    recipe = make_recipe(data_path=str(tmp_path / "data.json"), conv_template="llama_3")
    with pytest.raises(DataError, match=re.escape("no special token <|begin_of_text|>")):
        LlavaDataset(recipe.data, recipe.data.data_path, recipe.model.vision, sentencepiece_tokenizer, tmp_path)
