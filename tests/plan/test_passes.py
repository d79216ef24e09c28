"""How often a run passes over its samples, and what is said where that is far beyond what anybody trains."""

import json
from pathlib import Path

import pytest

from neva_recipes import gpt, llava
from neva_recipes.config import build, set_field
from neva_recipes.inspection.figures import cost_facts
from neva_recipes.plan import plan
from neva_recipes.plan.checks import with_values

STEPS, EPOCHS, GLOBAL = "trainer.max_steps", "trainer.max_epochs", "data.global_batch_size"
LENGTH = "data.sequence_length"
CODES = ("many-passes", "batch-repeats")


def chats(folder, count):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    path = folder / "chats.json"
    path.write_text(json.dumps([{"id": n, "image": "a.png", "conversations": turns} for n in range(count)]))
    (folder / "a.png").write_bytes(b"\x89PNG")
    return str(path)


def findings(recipe):
    return {finding.code: finding for finding in plan(recipe, gpu="h100-80g").findings if finding.code in CODES}


def of_chats(tmp_path, count, **fields):
    recipe = llava.finetune("7b")
    recipe.data.data_path = chats(tmp_path, count)
    for path, value in fields.items():
        set_field(recipe, path.replace("__", "."), value)
    return build(recipe)


def steps_text(recipe):
    return dict(cost_facts(plan(recipe, gpu="h100-80g")))["steps"]


def test_the_published_steps_on_a_few_samples(tmp_path):
    recipe = of_chats(tmp_path, 80)
    assert steps_text(recipe) == "5,198, about 8,300 passes over 80 samples"
    found = findings(recipe)
    assert found.keys() == set(CODES)
    assert "about 8,300 passes over 80 samples" in found["many-passes"].message
    # Three passes over 80 samples are 240 samples: two steps of 128.
    assert list(found["many-passes"].remedies) == [{EPOCHS: 3, STEPS: None}, {STEPS: 2}]
    # A batch divides over 8 GPUs with 4 samples each.
    assert list(found["batch-repeats"].remedies) == [{GLOBAL: 64}]
    for code, finding in found.items():
        for remedy in finding.remedies:
            assert code not in findings(with_values(recipe, remedy)), remedy


@pytest.mark.parametrize(
    ("count", "fields", "codes"),
    [
        (128, {"trainer__max_steps": "1000"}, set()),
        (128, {"trainer__max_steps": "1001"}, {"many-passes"}),
        (127, {"trainer__max_steps": "100"}, {"batch-repeats"}),
        (160, {"trainer__max_steps": "none", "trainer__max_epochs": "1000"}, set()),
        (160, {"trainer__max_steps": "none", "trainer__max_epochs": "1001"}, {"many-passes"}),
    ],
)
def test_where_they_begin(tmp_path, count, fields, codes):
    assert findings(of_chats(tmp_path, count, **fields)).keys() == codes


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, None),
        ({"lr_decay_steps": "5"}, None),  # 640 samples in batches of 128
        ({"lr_decay_steps": "4"}, "the learning rate is zero after step 4: the last of 5 steps changes nothing"),
        ({"lr_decay_steps": "4", "min_lr": "1e-6"}, None),
        ({"warmup_steps": "4", "warmup_ratio": "none"}, None),
        (
            {"warmup_steps": "5", "warmup_ratio": "none"},
            "the learning rate never reaches 2e-05: warm-up takes all of the 5 steps",
        ),
    ],
)
def test_the_schedule_of_a_run_whose_length_the_samples_decide(tmp_path, fields, told):
    passes = {"trainer__max_steps": "none", "trainer__max_epochs": "2"}
    recipe = of_chats(tmp_path, 320, **passes, **{f"optim__{name}": value for name, value in fields.items()})
    found = [each for each in plan(recipe).findings if each.code in ("lr-zero", "warmup-too-long")]
    assert [each.message for each in found] == ([] if told is None else [told])
    for each in found:
        assert each.remedies
        for remedy in each.remedies:
            assert each.code not in {other.code for other in plan(with_values(recipe, remedy)).findings}


def test_a_micro_batch_too_large_for_the_samples_is_made_smaller_with_the_batch(tmp_path):
    recipe = of_chats(tmp_path, 20, trainer__max_steps="5")
    remedies = findings(recipe)["batch-repeats"].remedies
    assert list(remedies) == [{GLOBAL: 16, "data.micro_batch_size": 2}]
    # Eight GPUs cannot share seven samples.
    (tmp_path / "few").mkdir()
    finding = findings(of_chats(tmp_path / "few", 7, trainer__max_steps="5"))["batch-repeats"]
    assert finding.remedies == () and finding.line().endswith("; take fewer GPUs, or more samples")


def test_rows_of_text_are_samples(tmp_path):
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n")
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path, recipe.trainer.max_steps = str(tmp_path / "text.txt"), 12
    built = build(recipe)
    assert steps_text(built) == "12, about 770 passes over 1 sample"  # 12 x 64 = 768
    found = findings(built)
    assert found.keys() == {"batch-repeats"}
    assert found["batch-repeats"].message == "each step takes the one sample that there is 64 times"


UNREADABLE = {
    "lines of another field.jsonl": '{"content": "a text"}\n' * 9,
    "UTF-16.txt": "a text\n" * 9,
    "UTF-16.jsonl": '{"text": "a text"}\n' * 9,
}
"""Text files of which every line is a mistake, by their names."""


@pytest.mark.parametrize("name", UNREADABLE)
def test_of_text_that_cannot_be_read_nothing_is_counted(tmp_path, name):
    (tmp_path / name).write_text(UNREADABLE[name], encoding="utf-16" if "UTF-16" in name else "utf-8")
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path = str(tmp_path / name)
    assert counted_of_unreadable(recipe) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("loader", ["cyclic", "single"])
def test_of_lines_that_are_called_an_array_nothing_is_counted(tmp_path, encoding, loader):
    lines = [json.dumps(sample) for sample in json.loads(Path(chats(tmp_path, 9)).read_text())]
    (tmp_path / "lines.json").write_text("\n".join(lines), encoding=encoding)
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.dataloader_type = str(tmp_path / "lines.json"), loader
    recipe.data.group_by_modality_length = False
    assert counted_of_unreadable(recipe) == []


def counted_of_unreadable(recipe):
    """Return the codes of findings that rest on the samples of a file that cannot be read, which is told."""
    planned = plan(build(recipe), gpu="h100-80g")
    codes = {finding.code for finding in planned.findings}
    assert "data-format" in codes and not planned.lengths.measured and planned.lengths.samples is None
    return sorted(codes & {*CODES, "short-pass", "samples-cut", "padding"})


def test_a_single_pass_repeats_nothing(tmp_path):
    # The run is longer than its pass, which is an error of its own.
    in_order = {"data__dataloader_type": "single", "data__group_by_modality_length": "false"}
    recipe = of_chats(tmp_path, 80, **in_order)
    assert findings(recipe) == {}
    assert "short-pass" in {finding.code for finding in plan(recipe, gpu="h100-80g").findings}


def test_nothing_is_said_of_samples_that_nobody_has_counted(tmp_path):
    recipe = llava.finetune("7b")
    assert findings(build(recipe)) == {} and steps_text(build(recipe)) == "5,198"


def of_text(tmp_path, lines, **fields):
    # A byte a token, by a tokenizer that is not here: 4 characters each are counted.
    (tmp_path / "text.txt").write_text(("word " * 16 + "\n") * lines)
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path = str(tmp_path / "text.txt")
    for path, value in fields.items():
        set_field(recipe, path.replace("__", "."), value)
    return build(recipe)


def test_of_text_a_shorter_sequence_makes_more_samples(tmp_path):
    # 80 characters a line are 20 tokens, and 2 for its ends: 6,600 tokens, 13 rows of 512.
    recipe = of_text(tmp_path, 300, trainer__max_steps="500")
    found = findings(recipe)
    assert "over 13 samples" in found["many-passes"].message
    # 32,000 samples are a thousand passes over 32 rows: 6,600 / 128 = 51, where 256 makes 25.
    assert {LENGTH: 128} in found["many-passes"].remedies
    # A batch of 64 has no sample twice where there are 64 rows: 6,600 / 64 = 103.
    assert {LENGTH: 64} in found["batch-repeats"].remedies
    for code, finding in found.items():
        for remedy in finding.remedies:
            assert code not in findings(with_values(recipe, remedy)), remedy


def test_every_file_of_text_begins_a_row(tmp_path):
    batch = {"data__global_batch_size": "52", "data__micro_batch_size": "4"}
    recipe = of_text(tmp_path, 100, trainer__max_steps="10", **batch)
    names = [str(tmp_path / f"{number}.txt") for number in range(3)]
    for name in names:
        Path(name).write_text(Path(recipe.data.data_path).read_text())
    recipe = with_values(recipe, {"data.data_path": names})
    # 2,200 tokens each: five rows of 512, the last of them short, and 18 of 128, which are 54 for a batch of 52.
    assert "of the 15 that there are" in findings(recipe)["batch-repeats"].message
    assert {LENGTH: 128} in findings(recipe)["batch-repeats"].remedies
    assert plan(with_values(recipe, {LENGTH: 128}), gpu="h100-80g").lengths.samples == 54


def test_no_sequence_is_offered_that_is_too_short_to_learn_from(tmp_path):
    found = findings(of_text(tmp_path, 30, trainer__max_steps="500"))
    assert found.keys() == set(CODES)
    assert all(LENGTH not in remedy for finding in found.values() for remedy in finding.remedies)


def test_of_conversations_the_length_makes_no_samples(tmp_path):
    assert all(LENGTH not in way for one in findings(of_chats(tmp_path, 80)).values() for way in one.remedies)
