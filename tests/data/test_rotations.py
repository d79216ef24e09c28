"""EXIF rotations are seen in the first bytes of photos, as Pillow sees them, and plan, worker and chat tell of them."""

import json
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neva_model.data import get_template
from neva_model.data.images import there
from neva_model.data.index import SampleIndex, SampleRules
from neva_recipes import llava
from neva_recipes.config import build
from neva_recipes.plan.data import record_check
from neva_recipes.plan.data.files import check_files, records_checked
from neva_recipes.prompts.pictures import Look, is_turned, look_into


@given(
    orientation=st.integers(0, 9) | st.none(),
    make=st.none() | st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=200),
    thumbnail=st.binary(max_size=3000),
    progressive=st.booleans(),
    cut=st.none() | st.integers(0, 400),
)
def test_an_exif_rotation_is_seen_where_pillow_sees_it(
    tmp_path_factory, orientation, make, thumbnail, progressive, cut
):
    exif = Image.Exif()
    for tag, value in ((0x010F, make), (0x0112, orientation), (0x9286, thumbnail or None)):
        if value is not None:
            exif[tag] = value
    path = tmp_path_factory.getbasetemp() / "turned.jpg"
    Image.new("RGB", (40, 20)).save(path, exif=exif, progressive=progressive)
    if cut is not None:
        assert isinstance(is_turned(BytesIO(path.read_bytes()[:cut])), bool)
        return
    with Image.open(path) as image:
        expected = 2 <= image.getexif().get(0x0112, 1) <= 8
    assert look_into(path).is_turned == expected == (orientation in range(2, 9))


def test_big_endian_exif_and_other_files_and_bytes():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0\0\x01a\0\0\0\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    jfif, segment = b"\xff\xe0\0\x04ab", b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    assert is_turned(BytesIO(b"\xff\xd8" + jfif + b"\xff" + segment))
    assert not is_turned(BytesIO(b"\xff\xd8" + jfif + segment.replace(b"\0\x06", b"\0\x01")))
    assert not is_turned(BytesIO(b"\x89PNG" + segment)) and not look_into(Path("/nowhere/a.jpg")).is_turned


def test_a_rotation_behind_other_segments_and_at_the_end_of_its_own_is_seen(tmp_path):
    """Behind colour profiles of several segments, and in a table of tags behind what it points to."""
    table = b"\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    late = b"Exif\0\0MM\0*" + (8 + 9000).to_bytes(4, "big") + bytes(9000) + table
    profile = b"\xff\xe2" + (60002).to_bytes(2, "big") + bytes(60000)
    segment = b"\xff\xe1" + (len(late) + 2).to_bytes(2, "big") + late
    Image.effect_noise((640, 480), 100).save(tmp_path / "plain.jpg", quality=95)
    plain = (tmp_path / "plain.jpg").read_bytes()
    path = tmp_path / "turned.jpg"
    path.write_bytes(plain[:2] + profile * 2 + segment + plain[2:])
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == 6 and image.size == (640, 480)
    assert look_into(path) == Look(None, is_read=True, is_turned=True)
    assert not look_into(tmp_path / "plain.jpg").is_turned


def write_turned(folder, count, turned):
    """Write photos large enough for the worker to look into, and samples about them; return the data file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.effect_noise((640, 480), 100)
    samples = []
    for number in range(count):
        noise.save(folder / f"{number}.jpg", quality=95, **({"exif": exif} if number < turned else {}))
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
        samples += [{"image": f"{number}.jpg", "conversations": turns}] * 2
    (folder / "data.json").write_text(json.dumps(samples))
    return folder / "data.json"


def test_plan_and_index_count_the_photos_with_a_rotation(tmp_path, capsys):
    data = write_turned(tmp_path, 3, turned=2)
    told = "2 of 3 images looked at have an EXIF rotation, which is not applied: rotate the files if they look turned"
    recipe = llava.finetune("tiny")
    recipe.data.data_path = str(data)
    (finding,) = [each for each in check_files(build(recipe)) if each.code == "images-turned"]
    assert finding.severity == "warning" and finding.message.startswith(told)
    assert finding.advice == "the first that was met is 0.jpg"
    for _ in range(2):
        SampleIndex(data, tmp_path / "cache", SampleRules(get_template("v1"), tmp_path))
    assert capsys.readouterr().out.count(f"note: {data}: {told}") == 1


def test_photos_without_a_rotation_bring_no_note(tmp_path, capsys):
    data = write_turned(tmp_path, 2, turned=0)
    recipe = llava.finetune("tiny")
    recipe.data.data_path = str(data)
    assert "images-turned" not in [each.code for each in check_files(build(recipe))]
    SampleIndex(data, tmp_path / "cache", SampleRules(get_template("v1"), tmp_path))
    assert "EXIF" not in capsys.readouterr().out


@pytest.fixture
def thumbnails(tmp_path):
    """200 photos of a kilobyte in samples about them; the last four are turned."""
    exif = Image.Exif()
    exif[0x0112] = 8
    samples = []
    for number in range(200):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{number}.jpg", **({"exif": exif} if number > 195 else {}))
        turns = [
            {"from": "human", "value": f"<image>\nWhat is {number}?"},
            {"from": "gpt", "value": f"A cat, {number}."},
        ]
        samples.append({"image": f"{number}.jpg", "conversations": turns})
    path = tmp_path / "data.json"
    path.write_text(json.dumps(samples))
    return path


def planned(path):
    recipe = llava.finetune("tiny")
    recipe.data.data_path = str(path)
    built = build(recipe)
    found = [(each.code, each.message) for each in check_files(built) if each.code.startswith("image")]
    return found, records_checked(built)


def test_the_plan_reads_the_header_of_every_photo_while_there_is_time(thumbnails, monkeypatch):
    ((code, message),), checked = planned(thumbnails)
    assert code == "images-turned" and message.startswith("4 of 200 images looked at have an EXIF rotation")
    assert checked == "all 200 records of data.json and the headers of 200 images"
    record_check._check.cache_clear()
    monkeypatch.setattr(record_check, "_HEADERS_SECONDS", -1)
    assert planned(thumbnails) == ([], "all 200 records of data.json and the headers of 64 of 200 images")


def test_the_plan_looks_at_photos_all_over_the_file(thumbnails, monkeypatch):
    """One in ten, of those behind the first ones that are always looked at, and half of them in either half."""
    looked = []
    inner = record_check.Images._look_into
    monkeypatch.setattr(
        record_check.Images, "_look_into", lambda self, name: looked.append(int(Path(name).stem)) or inner(self, name)
    )
    clock = iter(range(10**9))
    monkeypatch.setattr(record_check, "_HEADERS_SECONDS", 40)
    monkeypatch.setattr(record_check.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(record_check, "_SECONDS", 10**6)
    planned(thumbnails)
    assert looked[:64] == list(range(64)) and 30 < len(looked) - 64 < 50
    assert abs(sum(number > 131 for number in looked[64:]) / (len(looked) - 64) - 0.5) < 0.2


def test_a_text_behind_the_first_photos_is_no_image_to_the_plan(thumbnails):
    (thumbnails.parent / "150.jpg").write_text("<html>Not found</html>")
    (thumbnails.parent / "120.jpg").write_text("")
    (unusable, _), _ = planned(thumbnails)
    assert unusable == (
        "image-unusable",
        "2 of the images looked at cannot be used, the first is 120.jpg (sample 120): it is empty",
    )


@pytest.mark.parametrize(("listed", "seconds", "told"), [(1000, 10.0, 1), (0, 10.0, 1), (1000, -1, 0), (0, -1, 0)])
def test_the_log_counts_small_photos_however_they_are_found(thumbnails, monkeypatch, capsys, listed, seconds, told):
    monkeypatch.setattr(there, "_LISTED_AT_LEAST", listed)
    monkeypatch.setattr(there, "_LISTED_PER_NAME", 0)
    monkeypatch.setattr(there, "_SECONDS", seconds)
    SampleIndex(thumbnails, thumbnails.parent / "cache", SampleRules(get_template("v1"), thumbnails.parent))
    assert capsys.readouterr().out.count(f"note: {thumbnails}: 4 of 200 images looked at have an EXIF rotation") == told
