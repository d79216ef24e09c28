"""Records of a window are found wherever it lies, and every record of a large file is as likely to be taken."""

import io
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_recipes.config import DataError
from neva_recipes.plan.data import sampling
from neva_recipes.plan.data.sampling import array_records, line_records, sample_file

HOSTILE = st.sampled_from(
    ['{"conversations": []}', "}, {", '"', "\\", "\\\\", "{", "[", "]", "é日\U0001f600", "a b", "\n", '{"', "},{"]
)
TEXT = st.lists(HOSTILE, max_size=5).map("".join)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"conversations": st.lists(st.fixed_dictionaries({"from": TEXT, "value": TEXT}), max_size=3)},
        optional={"id": TEXT, "image": TEXT, "box": st.fixed_dictionaries({"x": st.integers(0, 9)})},
    ),
    max_size=6,
)


def starts(data, records):
    """Return where the bytes of each record begin in `data`."""
    places, position = [], 0
    for record in records:
        position = data.index(record, position)
        places.append(position)
        position += len(record)
    return places


@settings(max_examples=300, deadline=None)
@given(
    values=RECORDS,
    indent=st.sampled_from([None, 0, 4]),
    ascii_only=st.booleans(),
    place=st.floats(0, 1),
    length=st.integers(1, 300),
    tail=st.sampled_from([1, 50, 2**16]),
)
def test_the_objects_that_begin_in_a_window(values, indent, ascii_only, place, length, tail):
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    whole = list(array_records(io.BytesIO(data), 0, len(data)))
    assert [json.loads(record) for record in whole] == values
    offset = int(place * len(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_TAIL", tail)
        found = list(array_records(io.BytesIO(data), offset, length))
    inside = [
        record for record, start in zip(whole, starts(data, whole), strict=True) if offset <= start < offset + length
    ]
    assert found == inside


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(st.sampled_from(["", " ", "a", "b c", "é" * 7]), max_size=8),
    end=st.sampled_from(["", "\n"]),
    offset=st.integers(0, 60),
    length=st.integers(1, 40),
)
def test_the_lines_that_begin_in_a_window(lines, end, offset, length):
    data = ("\n".join(lines) + end).encode()
    expected, position = [], 0
    for line in data.split(b"\n"):
        if offset <= position < offset + length and line.strip():
            expected.append(line)
        position += len(line) + 1
    assert [line.removesuffix(b"\n") for line in line_records(io.BytesIO(data), offset, length)] == expected


@pytest.mark.parametrize("lines", [False, True])
def test_a_large_file_is_sampled_without_favour(tmp_path, lines, monkeypatch):
    """Half of the file is short records, the other half of its records are twenty times as long."""
    monkeypatch.setattr(sampling, "_SMALL", 2**16)
    monkeypatch.setattr(sampling, "_LARGEST_WINDOW", 2**16)
    draw, records = random.Random(1), []
    for number in range(20_000):
        words = "word " * draw.randint(1, 20) * (1 if number < 10_000 else 20)
        records.append({"id": number, "conversations": [{"from": "human", "value": words}]})
    path = tmp_path / "large"
    path.write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records))
    sample = sample_file(path, 2000, lines=lines)
    assert not sample.exact and sample.total == pytest.approx(20_000, rel=0.1)
    found = [json.loads(record) for record in sample.records]
    assert len({record["id"] for record in found}) == len(found)
    assert 1200 < len(found) < 5000
    assert sum(record["id"] < 10_000 for record in found) / len(found) == pytest.approx(0.5, abs=0.05)
    mean = sum(len(record["conversations"][0]["value"]) for record in found) / len(found)
    true = sum(len(record["conversations"][0]["value"]) for record in records) / len(records)
    assert mean == pytest.approx(true, rel=0.07)


def test_a_small_file_is_counted(tmp_path):
    path = tmp_path / "small.json"
    for turns in ("conversations", "messages"):
        path.write_text(json.dumps([{"id": number, turns: []} for number in range(1234)]))
        sample = sample_file(path, 100, lines=False)
        assert (sample.total, sample.exact, len(sample.records)) == (1234, True, 100)
        assert [json.loads(record)["id"] for record in sample.records[::50]] == [0, 617]


@pytest.mark.parametrize("content", ["", "[]", "[1, 2]", "nothing"])
def test_a_file_without_samples(tmp_path, content):
    (tmp_path / "empty.json").write_text(content)
    with pytest.raises(DataError, match="no sample found"):
        sample_file(tmp_path / "empty.json", 100, lines=False)
