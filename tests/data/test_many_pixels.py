"""Pictures of too many pixels are found before a training begins, in files of a few hundred bytes as in large ones."""

import hashlib
import io
import re
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from neva_model.data import get_template
from neva_model.data.index import BAD, SampleIndex, SampleRules
from neva_recipes.config import DataError
from neva_recipes.prompts.pictures import MAX_PIXELS, Look, can_be_too_large, header_problem
from neva_recipes.storage.digests import digest_of
from tests.data.test_checks import check, reported  # noqa: F401 a fixture
from tests.data.test_loader import write_samples

# Pillow's, whose filter is set once in a process and taken back by pytest after a test.
pytestmark = pytest.mark.filterwarnings("ignore:Image size")

SIDE = 9460
"""Side of the smallest square of that many pixels, near enough."""

LITTLE, BIG = "little", "big"


def put(data, place, size, order, value=SIDE):
    return data[:place] + value.to_bytes(size, order) + data[place + size :]


def saved(kind, size=(8, 8), mode="L", **options):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def png():
    return put(put(saved("PNG"), 16, 4, BIG), 20, 4, BIG)


def gif():
    return put(put(saved("GIF"), 6, 2, LITTLE), 8, 2, LITTLE)


def bmp():
    return put(put(saved("BMP"), 18, 4, LITTLE), 22, 4, LITTLE)


def webp():
    # Lossless: a byte 0x2f, then 14 bits of width - 1 and 14 bits of height - 1.
    data = saved("WEBP", mode="RGB", lossless=True)
    return put(data, data.index(b"VP8L") + 9, 4, LITTLE, (SIDE - 1) | (SIDE - 1) << 14)


def tiff():
    data = saved("TIFF")
    for tag in (256, 257):  # an entry is tag, type (4 for 4 bytes), count, value
        place = data.index(struct.pack("<HHI", tag, 4, 1))
        data = put(data, place + 8, 4, LITTLE)
    return data


def jpeg(**options):
    data = saved("JPEG", progressive=True, **options)
    place = data.index(b"\xff\xc2")
    return put(put(data, place + 5, 2, BIG), place + 7, 2, BIG) + bytes(MAX_PIXELS // 512)


FILES = {
    "flat.png": png,
    "flat.gif": gif,
    "flat.bmp": bmp,
    "flat.webp": webp,
    "flat.TIF": tiff,
    "flat.jpeg": jpeg,
    "camera.jpg": lambda: jpeg(exif=b"Exif\0\0" + bytes(60_000), icc_profile=bytes(100_000)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("listed", [True, False])
def test_they_end_the_run_before_its_first_step(tmp_path, check, name, listed, monkeypatch):  # noqa: F811
    if not listed:
        monkeypatch.setattr("neva_model.data.images.there._LISTED_AT_LEAST", 0)
        monkeypatch.setattr("neva_model.data.images.there._LISTED_PER_NAME", 0)
    path = write_samples(tmp_path, 6, bad={1: {"image": name}, 4: {"image": f"./{name}"}})
    (tmp_path / name).write_bytes(FILES[name]())
    with pytest.raises(DataError) as raised:
        check(path)
    told = f"image file {tmp_path / name} has {SIDE}x{SIDE} pixels, expected at most {MAX_PIXELS}"
    assert (
        f"2 of 6 samples are bad (data.on_bad_sample=skip passes over such samples): sample 1 (id 'id-1'): {told}; "
        in str(raised.value)
    )
    check(path, on_bad_sample="skip")
    assert reported(tmp_path) == {(str(path), 1): told, (str(path), 4): told}


def test_a_jpeg_too_small_for_so_many_is_not_opened(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg()[:-1000])
    assert can_be_too_large(path, MAX_PIXELS // 512) and not can_be_too_large(path, MAX_PIXELS // 512 - 1)
    assert header_problem(path) is None
    assert header_problem(path.rename(tmp_path / "a.png")) is not None


@given(
    kind=st.sampled_from(["PNG", "JPEG"]),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    mode=st.sampled_from(["L", "RGB"]),
    options=st.fixed_dictionaries(
        {},
        optional={
            "exif": st.binary(max_size=2000).map(lambda data: b"Exif\0\0" + data),
            "progressive": st.just(True),
            "icc_profile": st.binary(min_size=1, max_size=70_000),
        },
    ),
    filling=st.integers(0, 3),
)
def test_sizes_are_those_that_pillow_sees(tmp_path_factory, kind, size, mode, options, filling):
    data = saved(kind, size, mode, **options)
    if kind == "JPEG":
        data = data[:2] + b"\xff" * filling + data[2:]
    path = tmp_path_factory.getbasetemp() / "size.img"
    path.write_bytes(data)
    limit = size[0] * size[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neva_recipes.prompts.pictures._look_by_pillow", lambda path, turned: pytest.fail("asks Pillow"))
        patch.setattr("neva_recipes.prompts.pictures.MAX_PIXELS", limit - 1)
        assert header_problem(path) == f"has {size[0]}x{size[1]} pixels, expected at most {limit - 1}"
        patch.setattr("neva_recipes.prompts.pictures.MAX_PIXELS", limit)
        assert header_problem(path) is None
    with Image.open(path) as image:
        assert image.size == size


SIZED = re.compile(rb"\xff\xd8.*\xff[\xc0-\xcf].{7}|\x89PNG\r\n\x1a\n.{4}IHDR.{8}", re.DOTALL)
"""A file that has a size: a JPEG with a frame header, or a PNG that begins with its own."""


@given(st.binary(max_size=60))
@example(b"\xff\xd8\xff\xe0\x00\x04\x00\x00\xff\xd9")
@example(b"\x00\x00\x00\rIDAT" + bytes(13))
def test_other_bytes_have_no_size(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.img"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neva_recipes.prompts.pictures._look_by_pillow", lambda path, turned: Look(None))
        patch.setattr("neva_recipes.prompts.pictures.MAX_PIXELS", -1)
        for begin in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
            path.write_bytes(begin + data)
            assert header_problem(path) is None or SIZED.match(begin + data)


OLDER_VERSIONS = {
    "checked samples": [("offset", "<i8"), ("length", "<i8"), ("words", "<i4"), ("has_image", "?"), ("state", "u1")],
    "keyed samples": [
        *(("offset", "<i8"), ("length", "<i8"), ("words", "<i4"), ("has_image", "?"), ("state", "u1")),
        ("key", "<u8"),
    ],
    "samples with keys of their parts": [
        *(("offset", "<i8"), ("length", "<i8"), ("words", "<i4"), ("has_image", "?"), ("state", "u1")),
        ("keys", "<i4"),
    ],
}


@pytest.mark.parametrize("version", OLDER_VERSIONS)
def test_an_index_of_a_version_that_did_not_look_for_them_is_not_taken(version, tmp_path):
    (tmp_path / "huge.png").write_bytes(png())
    path = write_samples(tmp_path, 2, bad={number: {"image": "huge.png"} for number in range(2)})
    rules, cache = SampleRules(get_template("v1"), tmp_path), tmp_path / "cache"
    # Where that version kept its index, and that all samples are fine, as it believed.
    status = path.stat()
    state = str(path.resolve()), str(status.st_size), str(status.st_mtime_ns)
    named = "\0".join((version, *state, rules.template.name, str(tmp_path)))
    index = cache / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.index.npy"
    cache.mkdir()
    np.save(index, np.zeros(2, dtype=np.dtype(OLDER_VERSIONS[version])))
    index.with_name(f"{index.name}.digest").write_text(digest_of(index))
    assert SampleIndex(path, cache, rules).states.tolist() == [BAD, BAD]
    # This version takes its own index again: the picture is not looked into a second time.
    (tmp_path / "huge.png").write_bytes(saved("PNG"))
    assert SampleIndex(path, cache, rules).states.tolist() == [BAD, BAD]
