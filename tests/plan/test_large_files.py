"""The plan looks at as many records of a large data file as there is time for, all over it, and finds their faults."""

import json
import re

import pytest

from neva_recipes.config import build
from neva_recipes.plan.data import record_check, sampling, walk
from neva_recipes.plan.data.files import records_checked
from tests.plan.test_files import distinct, found, world

__all__ = ["world"]


@pytest.mark.parametrize(
    ("name", "turns"), [("large.json", "conversations"), ("large.json", "messages"), ("large.jsonl", "conversations")]
)
def test_of_a_large_file_parts_are_looked_at_that_lie_all_over_it(world, monkeypatch, name, turns):
    folder, recipe = world
    count, path = 6000, folder / name
    records = [distinct(number, id=f"s{number}", padding="x" * 800) for number in range(count)]
    for number in range(count):
        records[number][turns] = records[number].pop("conversations")
        records[number] |= {"video": "a.mp4"} if number >= count // 2 else {}
    path.write_text("\n".join(map(json.dumps, records)) if name.endswith("l") else json.dumps(records))
    recipe.data.data_path = name
    # With all the time that is needed every record is seen once, however they lie in the windows.
    monkeypatch.setattr(record_check, "_SECONDS", 3600)
    ((code, _, line),) = found(recipe)
    assert code == "bad-sample" and f"({count // 2:,} of {count:,} samples looked at are bad)" in line
    # In an array a window may hold records that it does not recognise, so that nobody knows whether these were all.
    extent = f"all {count:,} records" if name.endswith("l") else rf"{count:,} of about {count // 1000},\d\d\d records"
    assert re.fullmatch(f"{extent} of {name} and the headers of 8 images", records_checked(build(recipe)))
    # In less time it is fewer windows; they lie all over the file, and the number of records is an estimate.
    windows = []
    monkeypatch.setattr(walk, "array_records", counted(walk.array_records, windows))
    monkeypatch.setattr(walk, "line_records", counted(walk.line_records, windows))
    clock = iter(range(10**9))
    monkeypatch.setattr(record_check.time, "perf_counter", lambda: next(clock) / 1000)
    monkeypatch.setattr(record_check, "_SECONDS", 1.0)
    record_check._check.cache_clear()
    ((_, _, line),) = found(recipe)
    size = path.stat().st_size
    assert 5 < len(windows) < size / walk._WINDOW / 2
    assert abs(sum(windows) / len(windows) / size - 0.5) < 0.1
    seen = records_checked(build(recipe))
    total = int(re.search(r"of about ([\d,]+) records", seen)[1].replace(",", ""))
    assert total == pytest.approx(count, rel=0.1)


@pytest.mark.parametrize(
    ("line", "said"), [("{broken", "is not valid JSON: Expecting property name"), ("[1]", "is not a JSON object")]
)
def test_a_broken_line_of_a_large_file_is_found_wherever_it_stands(world, monkeypatch, line, said):
    folder, recipe = world
    lines = [json.dumps(distinct(number, padding="x" * 800)) for number in range(6000)]
    lines[4000] = line
    (folder / "large.jsonl").write_text("\n".join(lines))
    recipe.data.data_path = "large.jsonl"
    monkeypatch.setattr(record_check, "_SECONDS", 3600)
    ((code, severity, message),) = found(recipe)
    assert (code, severity) == ("data-format", "error")
    offset = int(re.search(rf"a line near byte ([\d,]+) {said}", message)[1].replace(",", ""))
    begin = sum(len(each) + 1 for each in lines[:4000])
    assert offset <= begin < offset + walk._WINDOW


def test_a_line_of_a_large_file_too_long_to_be_looked_at_is_no_fault(world, monkeypatch):
    folder, recipe = world
    lines = [json.dumps(distinct(number, padding="x" * 800)) for number in range(1000)]
    lines[500] = json.dumps(distinct(500, padding="x" * 2**20))
    (folder / "large.jsonl").write_text("\n".join(lines))
    recipe.data.data_path = "large.jsonl"
    monkeypatch.setattr(record_check, "_SECONDS", 3600)
    monkeypatch.setattr(record_check, "_SMALL", 2**20)
    monkeypatch.setattr(sampling, "_LONGEST_RECORD", 2**19)
    assert found(recipe) == []
    # All others were seen; with one that was not, their number is an estimate.
    assert re.fullmatch(r"999 of about [\d,]+ records of large.jsonl and .*", records_checked(build(recipe)))


def counted(find, offsets):
    def finding(file, offset, length):
        offsets.append(offset)
        return find(file, offset, length)

    return finding
