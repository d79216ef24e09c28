"""The report of bad samples: every one is named once, whoever writes and whoever was killed while writing."""

import json

from neva_model.data.loading import bad_samples
from neva_model.data.loading.bad_samples import BadSampleReport
from neva_model.data.sample import BadSample


def bad(number):
    return BadSample("data.json", number, f"id-{number}", "no turns")


def numbers(path):
    return [json.loads(line)["sample"] for line in path.read_text().splitlines()]


def test_reporters_in_turn_name_every_sample_once(tmp_path, monkeypatch):
    path = tmp_path / "bad_samples.jsonl"
    parsed = []

    class Json:
        """The module json, which counts the lines that are read."""

        dumps = staticmethod(json.dumps)

        @staticmethod
        def loads(line):
            parsed.append(line)
            return json.loads(line)

    monkeypatch.setattr(bad_samples, "json", Json)
    first, second = BadSampleReport(path), BadSampleReport(path)
    for number in range(50):
        first.add(bad(number))
        second.add(bad(number), bad(number + 1))
        first.add(bad(number + 1))
    assert numbers(path) == list(range(51))
    # A reporter reads what others have written, and nothing twice: else thousands of samples take minutes.
    assert len(parsed) <= 2 * 51


def test_an_unfinished_line_swallows_no_other(tmp_path):
    path = tmp_path / "bad_samples.jsonl"
    BadSampleReport(path).add(bad(1), bad(2))
    whole, half = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(whole + half[: len(half) // 2])
    later = BadSampleReport(path)
    later.add(bad(1))
    later.add(bad(2), bad(3))
    lines = path.read_text().splitlines()
    assert [json.loads(lines[number])["sample"] for number in (0, 2, 3)] == [1, 2, 3] and len(lines) == 4
