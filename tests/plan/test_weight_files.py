"""Files of weights are told by their headers alone: read as safetensors itself reads them, or refused in one line."""

import json
import math
import os
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from neva_recipes.config import CheckpointError
from neva_recipes.plan.huggingface import open_directory
from neva_recipes.plan.huggingface.tensors import read_tensors
from tests.plan.model_directories import shapes_of, write_model, write_safetensors
from tests.plan.test_files import LANGUAGE, TOWER

SMALL = {"model.norm.weight": [4], "lm_head.weight": [3, 4], "b": []}


def parts(path):
    """Return the header of a file, and how many bytes of values lie behind it."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), len(content) - 8 - length


def write(path, header, values):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(values))


def entry(name, **fields):
    return lambda header: {**header, name: {**header[name], **fields}}


def without(name, field):
    return lambda header: {**header, name: {key: value for key, value in header[name].items() if key != field}}


HEADERS = {
    "no object": (lambda header: [header], "expected an object"),
    "no JSON": (lambda header: b'{"a": ', "Expecting value"),
    "not UTF-8": (lambda header: b'{"a\xff": 3}', "invalid start byte"),
    "too deep": (lambda header: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "no entry": (lambda header: {**header, "b": 3}, "says no type, shape and place of b"),
    "no type": (without("b", "dtype"), "says no type, shape and place of b"),
    "no shape": (without("b", "shape"), "says no type, shape and place of b"),
    "no place": (without("b", "data_offsets"), "says no type, shape and place of b"),
    "one end": (entry("b", data_offsets=[32]), "says no type, shape and place of b"),
    "a word": (entry("b", shape=["4"]), "says no type, shape and place of b"),
    "negative": (entry("b", shape=[-1]), "says no type, shape and place of b"),
    "not whole": (entry("b", data_offsets=[32, 34.0]), "says no type, shape and place of b"),
    "huge": (entry("b", shape=[2**64]), "says no type, shape and place of b"),
    "larger than its bytes": (entry("b", shape=[7]), "b has 2 bytes, which its type F16 and shape [7] do not make"),
    "many dimensions": (entry("b", shape=[2**62] * 9000), "b has 2 bytes, which its type F16 and shape ["),
    "another's bytes": (entry("b", data_offsets=[0, 2]), "those before them end at"),
    "a gap": (entry("b", data_offsets=[33, 35]), "the values of b begin at"),
    "beyond the file": (entry("b", data_offsets=[32, 50], shape=[9]), "bytes, its header"),
    "twice": (lambda header: json.dumps(header)[:-1].encode() + b', "b": {}}', "b is there twice"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_header_that_cannot_be_is_one_line(fault, tmp_path):
    change, named = HEADERS[fault]
    path = tmp_path / "model.safetensors"
    write_safetensors(path, SMALL)
    header, values = parts(path)
    assert set(read_tensors(tmp_path)) == set(SMALL)
    write(path, change(header), values)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(tmp_path)
    assert str(caught.value).startswith(f"{path}: is damaged or incomplete (") and "\n" not in str(caught.value)
    assert named in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("length", [0, 1, 2**20, 99_999_999, 2**63, 2**64 - 1])
def test_a_length_that_cannot_be_is_one_line(length, tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, SMALL)
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is damaged or incomplete"):
        read_tensors(tmp_path)


def test_a_file_that_ends_early_or_late_is_one_line(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, SMALL)
    whole = path.read_bytes()
    for content in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: is damaged or incomplete \([^\n]+\); fetch"):
            read_tensors(tmp_path)


SIZES = [[], [4], [0], [2, 2], [0, 8], [8, 32], [0, 24], [24, 32], [32, 34], [32, 36], [3, 4], [0, 0], [0, 2**63]]
NUMBERS = [0, 1, 2, 3, 4, 24, 32, 34, -1, 2**40, 2**64, 1.0]
VALUES = st.sampled_from([None, True, "", "F16", "F32", "BF16", "F4", "I8", {}, *NUMBERS, *SIZES])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 99), st.booleans(), VALUES), min_size=1, max_size=4), st.integers(-3, 3))
def test_a_header_is_read_where_safetensors_reads_it(tmp_path, changes, more):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, SMALL)
    header, values = parts(path)
    for number, whole, value in changes:
        name = list(header)[number % len(header)]
        if whole or not isinstance(header[name], dict) or not header[name]:
            header[name] = value
        else:
            header[name][list(header[name])[number % len(header[name])]] = value
    write(path, header, values + (more if more > 1 else 0))
    try:
        with safe_open(path, framework="pt") as file:
            expected = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 no dict
    except SafetensorError:
        expected = None
    try:
        found = {name: tensor.shape for name, tensor in read_tensors(tmp_path).items()}
    except CheckpointError as error:
        assert "\n" not in str(error) and expected is None, error
        return
    # What is no float is refused by its type, whatever its size.
    if all(tensor.dtype in ("F16", "F32", "BF16", "F64") for tensor in read_tensors(tmp_path).values()):
        assert found == expected


@pytest.mark.parametrize("stored", ["bin", "safetensors"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
def test_whatever_bytes_a_file_holds_it_is_read_or_refused_in_one_line(tmp_path, stored, flips):
    path = tmp_path / ("pytorch_model.bin" if stored == "bin" else "model.safetensors")
    if stored == "bin":
        torch.save({name: torch.zeros(shape, dtype=torch.float16) for name, shape in SMALL.items()}, path)
    else:
        write_safetensors(path, SMALL)
    content = bytearray(path.read_bytes())
    for number, flip in flips:
        content[number % len(content)] ^= flip
    path.write_bytes(content)
    try:
        tensors = read_tensors(tmp_path)
    except CheckpointError as error:
        assert str(error).startswith(f"{path}: is damaged or incomplete (") and "\n" not in str(error)
        return
    for tensor in tensors.values():
        assert isinstance(tensor.dtype, str) and math.prod(tensor.shape) >= 0


INDICES = {
    "[]": "expected an object",
    '{"metadata": {}}': "expected a weight_map",
    '{"weight_map": []}': "expected a weight_map",
    '{"weight_map": {}}': "expected a weight_map",
    '{"weight_map": {"a": 3}}': "a lies in 3, expected the name of a file of this directory",
    '{"weight_map": {"a": ["1.safetensors"]}}': 'a lies in ["1.safetensors"], expected',
    '{"weight_map": {"a": "../other/1.safetensors"}}': 'a lies in "../other/1.safetensors", expected',
    '{"weight_map": {"a": "/etc/passwd"}}': 'a lies in "/etc/passwd", expected',
    '{"weight_map": {"a": "1\\u0000.safetensors"}}': "expected the name of a file",
    '{"weight_map": {"a": "2.safetensors"}}': "2.safetensors: is missing, but model.safetensors.index.json names it",
    '{"weight_map": {"a": "sub"}}': "sub: is missing, but",
}


@pytest.mark.parametrize("content", INDICES)
def test_an_index_that_cannot_be_is_one_line(content, tmp_path):
    here = tmp_path / "here"
    for folder in (here, here / "sub", tmp_path / "other"):
        folder.mkdir()
        write_safetensors(folder / "1.safetensors", SMALL)
    (here / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(here)
    assert INDICES[content] in str(caught.value) and "\n" not in str(caught.value)


def test_shards_may_lie_in_a_folder_of_the_directory(tmp_path):
    (tmp_path / "sub").mkdir()
    write_safetensors(tmp_path / "sub/1.safetensors", SMALL)
    index = {"weight_map": dict.fromkeys(SMALL, "sub/1.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read_tensors(tmp_path)) == set(SMALL)
    write_safetensors(tmp_path / "2.safetensors", {"b": [1]})
    index["weight_map"]["b"] = "2.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"1\.safetensors: holds b, which 2\.safetensors holds too"):
        read_tensors(tmp_path)


def test_a_pipe_is_no_configuration(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", SMALL)
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json: is missing"):
        open_directory(tmp_path)


LLAVA = {"model_type": "llava", "text_config": LANGUAGE, "vision_config": TOWER, "image_token_index": 300}


@pytest.mark.parametrize("fields", [LANGUAGE, TOWER, LLAVA], ids=["llama", "clip", "llava"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 10**6), change=st.sampled_from(["longer", "more", "scalar", "turned"]))
def test_every_shape_is_held_against_the_sizes_of_the_configuration(tmp_path, fields, number, change):
    write_model(tmp_path, fields)
    open_directory(tmp_path)
    shapes = shapes_of(fields)
    name = sorted(shapes)[number % len(shapes)]
    shape = shapes[name]
    other = {"longer": (shape[0] + 1, *shape[1:]), "more": (*shape, 1), "scalar": (), "turned": shape[::-1]}[change]
    if other == shape:
        return
    write_safetensors(tmp_path / "model.safetensors", {**shapes, name: other})
    with pytest.raises(CheckpointError) as caught:
        open_directory(tmp_path)
    assert "model.safetensors: " in str(caught.value) and " has shape [" in str(caught.value)
