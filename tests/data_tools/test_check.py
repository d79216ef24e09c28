"""`nemo-run data check` finds what was planted and nothing else, and refuses what training refuses."""

import gzip
import json
from collections import Counter

import pytest

from neva_model.data.index import SampleRules, check_record
from neva_recipes.cli.main import main
from neva_recipes.config import DataError
from neva_recipes.data_tools.check import check_files
from neva_recipes.data_tools.figures import histograms, share
from neva_recipes.data_tools.kinds import KINDS
from neva_recipes.data_tools.settings import Counts, Settings
from neva_recipes.prompts.templates import get_template
from tests.data_tools.samples import sample


def settings(**changes):
    return Settings(**{"template": "v1", "sequence_length": 2048, "image_tokens": 576, **changes})


def found_in(*paths, **changes):
    """Return the numbers of the samples with each kind of findings, for each file."""
    report = check_files(paths, settings(**changes), lambda progress: None)
    return [{kind: list(found.numbers) for kind, found in file.found.items()} for file in report.files]


def test_everything_that_was_planted_is_found_and_nothing_else(planted, capsys):
    path, images, truth = planted
    assert len(truth) >= 30 and path.stat().st_size > 4 * 2**20, "several processes check it"
    assert main(["data", "check", str(path), "--image-folder", str(images), "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    (file,) = report["files"]
    assert {one["kind"]: one["numbers"] for one in file["findings"]} == truth
    assert file["samples"] == 4000 and not report["clean"]
    lines = path.read_text(encoding="utf-8").splitlines()
    for one in file["findings"]:
        assert one["count"] == len(one["numbers"]) and one["severity"] == KINDS[one["kind"]].severity
        for listed in one["listed"]:
            record = json.loads(lines[listed["sample"] + 1].rstrip(","))
            assert listed["id"] == record["id"]
            assert listed["line"] == (None if one["kind"].startswith("duplicate") else listed["sample"] + 2)


def test_training_refuses_what_has_an_error_and_takes_the_rest(planted):
    """The worker's own check of a record and its image is asked, which decodes the image."""
    path, images, truth = planted
    refused = {
        number
        for kind, numbers in truth.items()
        for number in numbers
        if KINDS[kind].severity == "error" and not kind.startswith("cut")
    }
    rules = SampleRules(get_template("v1"), images)
    for number, record in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        try:
            check_record(record, rules)
        except DataError:
            assert number in refused, (number, record)
            refused.remove(number)
    assert not refused


def test_decoding_finds_the_same_and_what_only_shows_then(planted, tmp_path, write):
    path, images, truth = planted
    assert found_in(path, image_folder=images, decodes=True) == [truth]
    whole = (images / "good" / "0.jpg").read_bytes()
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 99 + b"IEND\xaeB`\x82")
    (tmp_path / "padded.jpg").write_bytes(whole + b"\0" * 9000)
    records = [sample(0, "<image>\n0", image="damaged.png"), sample(1, "<image>\n1", image="padded.jpg")]
    file = write(*records)
    assert found_in(file, image_folder=tmp_path) == [{}]
    assert found_in(file, image_folder=tmp_path, decodes=True) == [{"image-damaged": [0]}]


def test_lines_and_archives_are_as_an_array(planted, tmp_path):
    path, images, truth = planted
    records = json.loads(path.read_text(encoding="utf-8"))
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("a.jsonl", "b.jsonl.gz", "c.json.gz"):
        assert found_in(tmp_path / name, image_folder=images) == [truth], name


def test_the_line_counts_blank_ones(tmp_path):
    lines = [json.dumps(sample(0)), "", "", json.dumps(sample(1, answer="")), json.dumps(sample(2, answer=" "))]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (report,) = check_files([tmp_path / "a.jsonl"], settings(), lambda progress: None).files
    assert [(one.number, one.line, one.id) for one in report.found["no-loss"].listed] == [(1, 4, "1"), (2, 5, "2")]


def test_in_a_file_of_one_line_no_line_is_told(write):
    (report,) = check_files([write(sample(0), sample(1, answer=""))], settings(), lambda progress: None).files
    assert [(one.number, one.line) for one in report.found["no-loss"].listed] == [(1, None)]


def test_duplicates_are_found_across_files(write):
    first = write(sample(0), sample(1, "Who?"), name="a.json")
    second = write(sample(0, "Where?"), sample("x", "Who? "), name="b.jsonl")
    assert found_in(first, second) == [{}, {"duplicate-id": [0], "duplicate-content": [1]}]


def test_one_sample_has_all_of_its_faults(write):
    turns = [
        {"from": "gpt", "value": 3},
        {"from": "human", "vlaue": "What <image>?"},
        {"from": "gpt", "value": "It is <image>."},
    ]
    (found,) = found_in(write({"id": 1, "conversations": turns, "video": "a.mp4", "imags": "a.jpg"}))
    assert set(found) == {
        *("value-not-text", "value-missing", "roles-not-alternating", "image-mark-in-answer", "field-unusable"),
        *("key-misspelled", "image-in-other-field"),
    }


def test_names_that_other_data_sets_use_are_no_misspellings(write):
    extra = {
        "model": "",
        "source": "coco",
        "image_id": 3,
        "dataset": "x",
        "category": "a",
        "question_id": 1,
        "task": "",
    }
    assert found_in(write(sample(0, **extra))) == [{}]


def test_the_template_decides(write):
    path = write(sample(0, "<image>\nWhat?", "One\nTwo", image="a.jpg"), sample(1))
    assert found_in(path) == [{}]
    assert found_in(path, template="plain") == [{"answer-broken-off": [0], "template-misfit": [1]}]


def test_figures_are_those_of_counting_by_hand(write):
    long = sample(2, "<image>\nA?", "b " * 700, image="a.jpg")
    long["conversations"] += [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "c d e"}]
    path = write(sample(0, answer="one two"), sample(1, "B?", "x"), long)
    report = check_files([path], settings(sequence_length=700), lambda progress: None)
    counts = report.counts
    assert (counts.samples, counts.usable, counts.with_image, counts.cut) == (3, 3, 1, 1)
    assert counts.turns == Counter({2: 2, 4: 1}) and counts.words == Counter({2: 1, 1: 1, 700: 1, 3: 1})
    assert counts.image_tokens == Counter({0: 2, 576: 1})
    by_name = {one.name: one for one in histograms(counts, report.settings)}
    assert [(one.least, one.most, one.number) for one in by_name["turns"].bins] == [(2, 2, 2), (4, 4, 1)]
    assert by_name["words"].mean == 706 / 4 and by_name["words"].most == 700 and by_name["words"].median == 2


def test_bins_hold_everything_once():
    chance = Counter({3: 4, 17: 2, 90: 700, 250: 40, 251: 1, 9000: 1})
    (found,) = histograms(Counts(lengths=chance), settings())
    assert sum(one.number for one in found.bins) == chance.total() and len(found.bins) <= 13
    for value, number in chance.items():
        (home,) = [one for one in found.bins if one.least <= value and (one.most is None or value <= one.most)]
        assert home.number >= number


@pytest.mark.parametrize(
    ("some", "total", "shown"), [(0, 9, "0 %"), (9, 9, "100 %"), (0, 0, "0 %"), (1, 10**6, "0.01 %"), (1, 4, "25.00 %")]
)
def test_a_share_is_none_or_all_only_if_it_is(some, total, shown):
    assert share(some, total) == shown


@pytest.mark.parametrize("template", ["v1", "llama_2", "mistral_instruct"])
def test_tokens_are_those_of_the_worker(template, write, tmp_path):
    from neva_model.data.encoding import encode_conversation
    from neva_model.tokenizers import load_tokenizer
    from neva_recipes.prompts.conversation import Turn
    from tests.tokenizers.texts import english_lines, train_model

    model = train_model(tmp_path / "english.model", english_lines())
    question, answer = "What does it return, naïve one?", "It returns a list of lines, 日本."
    path = write(sample(0, f"<image>\n{question}", answer, image="a.jpg"))
    turns = [Turn("human", question, image=True), Turn("gpt", answer)]
    report = check_files([path], settings(template=template, tokenizer=model), lambda progress: None)
    encoded = encode_conversation(
        turns, get_template(template), load_tokenizer(str(model), vocab_size=None), tokens_per_image=576
    )
    assert report.counts.lengths == Counter({len(encoded.tokens): 1})
