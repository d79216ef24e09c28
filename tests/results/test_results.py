"""What has come of a run, where people look for it: in Python, `status`, `show` and `diff`."""

import json
import os
import shlex
import shutil
from datetime import datetime

import numpy as np
import pytest

import executors
from executors import State, write_state
from neva_recipes import gpt, llava
from neva_recipes.cli.main import main
from neva_recipes.cli.report.finish import next_lines
from neva_recipes.cli.report.second_stage import second_stage
from neva_recipes.config import build, recipe_to_yaml, set_field
from neva_recipes.storage.best import best_step
from neva_recipes.storage.digests import digest_of
from neva_recipes.table import display_width
from tests.results.written_runs import write_metrics


@pytest.fixture
def printed(capsys):
    """A function that runs a command and returns what it printed."""

    def call(*arguments):
        assert main(list(map(str, arguments))) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


def facts(text):
    return dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)


def write_evaluation(run, name, correct, second, **changed):
    report = {"model": str(run / "checkpoints" / "step-00000100"), "data": "/data/held_out.json,b.json"}
    report |= {"questions": 180, "correct": correct, "accuracy": correct / 180, "seconds": 3.0, **changed}
    path = run / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report))
    os.utime(path, (second, second))


def test_metrics_are_curves(make_run):
    metrics = executors.Run(make_run("a")).metrics()
    train, val = metrics["reduced_train_loss"], metrics["val_loss"]
    assert list(train.steps) == list(range(10, 401, 10)) and list(val.steps) == [100, 200, 300, 400]
    assert np.asarray(val.values).tolist() == [0.21, 0.25, 0.3, 0.34]
    assert (val.last, val.lowest) == (executors.Point(400, 0.34), executors.Point(100, 0.21))


def test_the_newest_of_equal_losses_is_the_lowest_as_it_is_the_best_checkpoint(folder):
    losses = {20: 0.75, 40: 0.744, 60: 0.744, 80: 0.8}
    write_metrics(folder, {step: {"val_loss": loss} for step, loss in losses.items()})
    lowest = executors.Run(folder).metrics()["val_loss"].lowest
    assert lowest == executors.Point(best_step(losses), 0.744) == (60, 0.744)


def test_metrics_that_are_not_there_or_no_numbers(folder):
    run = executors.Run(folder)
    assert run.metrics() == {}
    with pytest.raises(KeyError, match="none has been logged yet"):
        run.metrics()["train_loss"]
    write_metrics(folder, {1: {"a": "nan", "b": 2.5}, 2: {"a": "", "b": "x"}, "": {"b": 1}, 4: {"a": "inf", "b": 3}})
    with (folder / "metrics" / "metrics.csv").open("a") as file:
        file.write("5,,4,too,many\n6\n")
    metrics = run.metrics()
    assert metrics.keys() == {"b"}
    assert (list(metrics["b"].steps), list(metrics["b"].values)) == ([1, 4, 5], [2.5, 3, 4])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("train_loss", "did you mean reduced_train_loss?"),
        ("loss", "did you mean reduced_train_loss, val_loss?"),
        ("val_los", "did you mean val_loss?"),
        ("throughput", ": expected one of reduced_train_loss, val_loss"),
    ],
)
def test_a_metric_that_is_not_there_is_answered_with_those_that_are(folder, name, told):
    write_metrics(folder, {1: {"reduced_train_loss": 2.5, "val_loss": 2.0}})
    metrics = executors.Run(folder).metrics()
    assert name not in metrics and metrics.get(name) is None
    with pytest.raises(KeyError) as raised:
        metrics[name]
    assert repr(name) in raised.value.args[0] and told in raised.value.args[0]


def test_results_of_a_run_on_cpus(make_run):
    path = make_run("a")
    results = executors.Run(path).results()
    assert results.train_loss == results.lowest_train_loss == (400, pytest.approx(0.01))
    assert (results.val_loss, results.lowest_val_loss) == ((400, 0.34), (100, 0.21))
    assert (results.seconds, results.tokens_per_second) == (120.0, pytest.approx(2000))
    # The plan is for GPUs.
    assert results.planned_seconds is results.planned_tokens_per_second is None
    assert results.best_checkpoint == path / "checkpoints" / "step-00000100"
    assert results.evaluations == ()


def test_the_best_that_is_not_there_any_more_is_not_called_so(make_run, printed):
    path = make_run("a")
    assert facts(printed("status", "a"))["best"].strip() == str(path / "checkpoints" / "step-00000100")
    (path / "checkpoints" / "step-00000100").rename(path / "checkpoints" / ".removed-step-00000100")
    found = facts(printed("status", "a"))["best"].strip()
    there = path / "checkpoints" / "step-00000400"
    assert found == f"0.2100 at step 100, without a checkpoint; of those there {there}"


def test_speed_counts_slow_steps_by_their_time(make_run):
    path = make_run("a")
    write_metrics(
        path, {1: {"step_time": 9.0, "tokens_per_second": 10}, 2: {"step_time": 1.0, "tokens_per_second": 110}}
    )
    assert executors.Run(path).results().tokens_per_second == pytest.approx(20.0)


def test_results_of_a_run_on_gpus(make_run):
    path = make_run("a", gpu=True)
    results, plan = executors.Run(path).results(), json.loads((path / "plan.json").read_text())
    assert results.planned_seconds == pytest.approx(plan["cost"]["hours"] * 3600)
    # 640 samples a second in steps of 0.1 s are 64 samples a step.
    assert results.planned_tokens_per_second == pytest.approx(
        plan["lengths"]["tokens"] * 64 / plan["cost"]["step_seconds"]
    )


def test_evaluations_are_listed_oldest_first(make_run):
    path = make_run("a")
    write_evaluation(path, "evaluation.json", 90, 5)
    assert [found.correct for found in executors.Run(path).results().evaluations] == [90]
    write_evaluation(path, "evaluations/b.json", 171, 6)
    write_evaluation(path, "evaluations/c.json", 90, 5)
    for number, text in enumerate(("{", "[]", '{"accuracy": NaN}')):
        (path / "evaluations" / f"broken-{number}.json").write_text(text)
    (path / "evaluations" / "c.jsonl").touch()
    assert [found.correct for found in executors.Run(path).results().evaluations] == [90, 171]


@pytest.mark.parametrize(
    ("fields", "known", "said"),
    [
        ({}, None, ""),
        ({"training_data": False}, None, ""),
        ({"training_data": True}, True, " (training data)"),
        ({"training_data": False, "training_questions": 0}, False, ""),
        ({"training_data": True, "training_questions": 12}, True, " (12 of them training data)"),
        ({"training_data": True, "training_questions": 180}, True, " (training data)"),
        ({"training_data": None, "training_questions": None}, None, ""),
    ],
)
def test_only_reports_that_count_know_that_questions_are_new(make_run, fields, known, said):
    path = make_run("a")
    write_evaluation(path, "evaluations/b.json", 171, 6, **fields)
    (found,) = executors.Run(path).results().evaluations
    assert found.training_data is known
    assert found.summary() == f"95.00% of 180 right: held_out.json, b.json{said}, step-00000100"


def test_status_and_show(make_run, printed):
    path = make_run("a")
    write_evaluation(path, "evaluations/b.json", 171, 6)
    write_evaluation(path, "evaluations/c.json", 180, 7, data="train.json", training_data=True)
    expected = {
        "loss": "0.0100 at step 400",
        "val loss": "0.3400 at step 400, best 0.2100 at step 100",
        "tokens/s": "2,000",
        "best": str(path / "checkpoints" / "step-00000100"),
        "evaluated": "95.00% of 180 right: held_out.json, b.json, step-00000100",
        "time": "0:02:00",
    }
    for text in (printed("status", "a"), printed("show", "a")):
        told = {name: value.strip() for name, value in facts(text).items()}
        assert {name: told.get(name) for name in expected} == expected
        assert "100.00% of 180 right: train.json (training data), step-00000100" in text
    document = json.loads(printed("show", "a", "--format", "json"))
    assert document["results"] == json.loads(json.dumps(executors.Run(path).results().to_plain()))
    assert document["results"]["val_loss"] == {"step": 400, "value": 0.34}
    assert document["results"]["evaluations"][0]["accuracy"] == 0.95
    assert json.loads(printed("status", "a", "--format", "json")) == {
        name: document[name] for name in document if name not in ("job", "plan", "recipe", "resumes")
    }
    every = json.loads(printed("status", "--format", "json"))
    assert (every["schema"], [run["run"] for run in every["runs"]]) == (1, ["a"])
    assert main(["status", "--format", "json", "--watch"]) == 2


def test_evaluations_of_one_name_are_told_apart(make_run, printed, folder):
    path = make_run("a")
    (folder / "held.json").write_text("new")
    here, new = str(folder / "held.json"), digest_of(folder / "held.json")
    other = {"model": str(path / "checkpoints" / "step-00000200"), "conv_template": "v1"}
    reports = [
        {"data": "/x/one/held.json", "digests": ["crc32:1"]},
        {"data": "/x/two/one/held.json", "digests": ["crc32:1"]},
        {"data": here, "digests": ["crc32:2"]},
        {"data": here, "digests": [new]},
        {"data": here, "digests": [new], **other},
        {"data": "/x/test.json,b.json", "digests": ["crc32:1", "crc32:2"]},
        {"data": "/x/test.json,b.json"},
        {"data": "only.json", "digests": ["crc32:1"]},
        {"data": "only.json", "digests": ["crc32:1"], "model": "/moved/a/checkpoints/step-00000100"},
    ]
    for number, report in enumerate(reports):
        write_evaluation(path, f"evaluations/{number}.json", 90, 1_700_000_000 + number, **report)
    moments = [f"{datetime.fromtimestamp(1_700_000_000 + number):%Y-%m-%d %H:%M:%S}" for number in range(9)]
    own = f"{folder.name}/held.json"
    expected = [
        "x/one/held.json, step-00000100",
        "two/one/held.json, step-00000100",
        f"{own} as it was on {moments[2]}, step-00000100",
        f"{own} as it is now, step-00000100",
        f"{own} as it is now, step-00000200",
        f"test.json, b.json as they were on {moments[5]}, step-00000100",
        f"test.json, b.json as they were on {moments[6]}, step-00000100",
        f"only.json, step-00000100, {moments[7]}",
        f"only.json, step-00000100, {moments[8]}",
    ]
    lines = [line for line in printed("status", "a").splitlines() if " right: " in line]
    assert [line.partition(" right: ")[2] for line in lines] == expected
    # Nothing need be said of a single content, also where it is another by now.
    for number in (0, 1, 2):
        (path / "evaluations" / f"{number}.json").unlink()
    assert [line.rpartition(": ")[2] for line in printed("status", "a").splitlines() if "held" in line] == [
        "held.json, step-00000100",
        "held.json, step-00000200",
    ]


def test_show_says_what_was_planned_on_gpus(make_run, printed):
    make_run("a", gpu=True)
    lines = printed("show", "a").partition("Results\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [
        "loss",
        "val loss",
        "tokens/s",
        "best",
        "time",
    ]
    assert "2,000, planned 2,9" in lines[2] and lines[4].endswith("0:02:00, planned 0:00:05")


def test_the_table_has_all_columns_whatever_the_names_are(make_run, printed):
    make_run("short")
    table = printed("status").splitlines()
    assert table[0].split() == ["RUN", "STATE", "STEP", "LOSS", "STARTED", "TIME"]
    assert table[1].split()[:4] == ["short", "succeeded", "400", "0.01"]
    make_run("llava.finetune-20260301-120000")
    assert " LOSS " in printed("status").splitlines()[0]
    long = "llava.finetune-with-a-longer-name-20260301-120000"
    make_run(long)
    table = printed("status").splitlines()
    assert table[0].split() == ["RUN", "STATE", "STEP", "LOSS", "STARTED", "TIME"] and max(map(len, table)) <= 80
    # What stands for the name is a pattern that commands take.
    pattern, *others = table[1 + sorted(["short", "llava.finetune-20260301-120000", long]).index(long)].split()
    assert (pattern, others[2]) == ("llava.finetune-wi*e-20260301-120000", "0.01")
    assert facts(printed("status", pattern))["run"].strip() == long
    # Where a pattern would mean two runs, the names are whole, on lines of their own.
    other = long.replace("longer", "larger")
    make_run(other)
    make_run("名前" * 20 + "-20260301-120000")
    table = printed("status").splitlines()
    assert {long, other} <= set(table) and table[0].split()[3] == "LOSS"
    assert max(map(display_width, table)) <= 80 and sum("*" in line for line in table) == 1


def test_a_run_that_was_resumed_stands_where_it_was_launched(make_run, printed):
    days = {"early": (1, 1, 1), "resumed": (2, 9, 2), "late": (3, 3, 1), "edited": (4, 8, 2)}
    for name, (launched, started, attempt) in days.items():
        path = make_run(name)
        record = json.loads((path / "job.json").read_text())
        record["created"] = f"2020-03-0{launched}T12:00:00+00:00" if name != "edited" else "once"
        (path / "job.json").write_text(json.dumps(record))
        moments = {"started": f"2020-03-0{started}T12:00:00+00:00", "ended": f"2020-03-0{started}T12:00:09+00:00"}
        write_state(path, State(state="succeeded", exit_code=0, attempt=attempt, **moments))
    table = [line.split() for line in printed("status").splitlines()[1:-1]]
    shown = {row[0]: row[4] for row in table}
    assert shown == {"early": "2020-03-01", "resumed": "2020-03-02", "late": "2020-03-03", "edited": "2020-03-08"}
    assert [row[0] for row in table][:3] == ["early", "resumed", "late"]
    # When the last attempt began is still told.
    assert "started:   2020-03-09 " in printed("status", "resumed")
    assert json.loads(printed("status", "resumed", "--format", "json"))["started"].startswith("2020-03-09")


def test_diff_compares_results(make_run, printed):
    make_run("a")
    other = make_run("b", lr=2e-3, shift=0.05)
    write_evaluation(other, "evaluations/b.json", 171, 6)
    text = printed("diff", "a", "b")
    assert "lr 0.001 -> 0.002" in text
    assert (
        text[text.index("What came of it") :]
        == """\
What came of it                           A               B      change
  train loss, last                0.01 nats       0.06 nats         x 6
  train loss, lowest              0.01 nats       0.06 nats         x 6
  val loss, last                  0.34 nats       0.39 nats     +14.7 %
  val loss, best                  0.21 nats       0.26 nats     +23.8 %
  right answers, held_out.json, b.json, 180 questions
                                          -            95 %
  time                                120 s           120 s        same
  tokens a second                     2,000           2,000        same
"""
    )
    document = json.loads(printed("diff", "a", "b", "--format", "json"))
    assert [document[side]["results"]["val_loss"]["value"] for side in "ab"] == [0.34, 0.39]
    # Equal recipes may have come to different results; what was changed on the way has none.
    make_run("c", shift=0.1)
    assert "The recipes are equal.\n\nWhat came of it" in printed("diff", "a", "c")
    changed = printed("diff", "a", "optim.lr=1")
    assert changed.partition("val loss, best")[2].splitlines()[0].split() == ["0.21", "nats", "-"]
    assert "What came of it" not in printed("diff", "llava.finetune", "optim.lr=1")


def answers(text):
    """Return the rows of a comparison that count right answers, each as one line of single spaces, and the note."""
    rows = text.partition("  right answers")[2].partition("  time ")[0]
    note = text.partition("tokens a second")[2].partition("\n")[2]
    return [" ".join(row.split()) for row in rows.split("  right answers")], note


def test_diff_compares_answers_to_the_same_questions(make_run, printed):
    a, b = make_run("a"), make_run("b", lr=2e-3)
    val, test = {"data": "/d/val.json", "digests": ["v"]}, {"data": "test.json", "digests": ["t", "u"]}
    write_evaluation(a, "evaluations/1.json", 90, 1, **val)
    write_evaluation(a, "evaluations/2.json", 171, 2, **test)
    write_evaluation(b, "evaluations/1.json", 45, 1, data="other.json", digests=["v"])
    # Nothing else that B was evaluated on is in common, whatever its name.
    write_evaluation(b, "evaluations/2.json", 180, 9, data="test.json", digests=["t"])
    assert answers(printed("diff", "a", "b")) == ([", val.json 50 % 25 %"], "")
    # The newest of several evaluations counts, and every data set in common has its row.
    write_evaluation(b, "evaluations/3.json", 108, 3, **val)
    write_evaluation(b, "evaluations/4.json", 9, 4, data="test.json", digests=["u", "t"])
    assert answers(printed("diff", "a", "b")) == ([", val.json 50 % 60 %", ", test.json 95 % 5 %"], "")
    # Two of one name are told apart.
    for run in (a, b):
        write_evaluation(run, "evaluations/5.json", 9, 5, data="/e/val.json", digests=["w"])
    assert answers(printed("diff", "a", "b"))[0][::2] == [", d/val.json 50 % 60 %", ", e/val.json 5 % 5 % same"]


def test_diff_tells_shares_of_other_steps_and_of_training_data(make_run, printed):
    a, b = make_run("a"), make_run("b", lr=2e-3)
    val = {"data": "val.json", "digests": ["v"]}
    write_evaluation(a, "evaluations/1.json", 90, 1, **val)
    write_evaluation(b, "evaluations/1.json", 45, 1, **val, model=f"{b}/checkpoints/step-00000250", training_data=True)
    shown, _ = answers(printed("diff", "a", "b"))
    assert shown == [", val.json (A at step 100, B at step 250, B was trained on some) 50 % 25 %"]


def test_another_template_than_that_of_the_training_is_told_and_is_another_question(make_run, printed):
    a, b = make_run("a"), make_run("b", lr=2e-3)
    asked = {"data": "val.json", "digests": ["v"], "image_folder": "/pictures", "conv_template": "v1"}
    own, other = ({"training": {"image_folder": folder, "conv_template": "v1"}} for folder in ("/pictures", None))
    write_evaluation(a, "evaluations/1.json", 90, 1, **asked, **own)
    write_evaluation(b, "evaluations/1.json", 45, 1, **{**asked, "conv_template": "llama_2"}, **own)
    write_evaluation(b, "evaluations/2.json", 36, 2, **asked, **other)
    told = [line.partition("right: ")[2] for line in printed("status", "b").splitlines() if " right: " in line]
    assert told == ["val.json, template llama_2, step-00000100", "val.json, images of /pictures, step-00000100"]
    rows, note = answers(printed("diff", "a", "b"))
    assert rows == [", val.json, 180 questions 50 % -", ", val.json, images of /pictures, 180 questions - 20 %"]
    assert "in another way (template, images)" in note
    write_evaluation(b, "evaluations/3.json", 108, 3, **asked, **own)
    assert answers(printed("diff", "a", "b")) == ([", val.json 50 % 60 %"], "")


def test_diff_says_where_the_questions_were_others(make_run, printed):
    a, b = make_run("a"), make_run("b", lr=2e-3)
    write_evaluation(a, "evaluations/1.json", 90, 1, data="val.json", digests=["v"])
    write_evaluation(b, "evaluations/1.json", 45, 1, data="val.json", digests=["w"])
    rows, note = answers(printed("diff", "a", "b"))
    assert rows == [", val.json, 180 questions 50 % -", ", val.json, 180 questions - 25 %"]
    assert note == "  they were asked other questions, or in another way (template, images): nemo-run evaluate\n"
    # A report of an older version has no digests: the name and the count have to do.
    write_evaluation(b, "evaluations/1.json", 45, 1, data="val.json")
    assert answers(printed("diff", "a", "b")) == ([", val.json 50 % 25 %"], "")
    write_evaluation(b, "evaluations/1.json", 10, 1, data="val.json", questions=20, accuracy=0.5)
    assert answers(printed("diff", "a", "b"))[0] == [
        ", val.json, 180 questions 50 % -",
        ", val.json, 20 questions - 50 %",
    ]
    document = json.loads(printed("diff", "a", "b", "--format", "json"))
    assert document["a"]["results"]["evaluations"][0]["digests"] == ["v"]


def test_what_to_do_next(make_run, folder):
    path = make_run("a")
    run = executors.Run(path)
    assert next_lines(run) == [
        "next:",
        "  nemo-run chat a --image FILE",
        "  nemo-run evaluate a --data FILE",
        "  nemo-run export a DIR",
        "  nemo-run plot a",
        "step-00000100 has the lowest val loss, 0.2100:",
        "  runs/a/checkpoints/step-00000100",
    ]
    (path / "metrics" / "events.out.tfevents.1").touch()
    assert "  tensorboard --logdir runs" in next_lines(run)
    shutil.rmtree(path / "checkpoints" / "step-00000400")
    assert not [line for line in next_lines(run) if "lowest" in line]
    # Nothing was saved: there is nothing to ask.
    shutil.rmtree(path / "checkpoints")
    assert next_lines(run) == ["next:", "  nemo-run plot a", "  tensorboard --logdir runs"]
    shutil.rmtree(path / "metrics")
    assert next_lines(run) == []


def test_what_fits_a_text_model_captions_and_what_cannot_be_exported(make_run):
    path = make_run("a")
    deep = llava.pretrain("tiny")
    set_field(deep, "model.projector.mm_projector_type", "mlp3x_gelu")
    # A prompt of four characters is left room for: 80 columns less those hold each line.
    second = "llava.finetune size=tiny data.data_path=FILE \\"
    parts = "    model.language.from_pretrained=a model.vision.from_pretrained=a \\"
    taken = "    model.projector.from_pretrained=a"
    kind = "    model.projector.mm_projector_type=mlp3x_gelu"
    for recipe, expected in (
        (
            deep,
            ["chat a --image FILE", second, parts, f"{kind} \\", taken, "plot a"],
        ),
        (gpt.pretrain("tiny"), ["chat a", "export a DIR", "plot a"]),
        (
            llava.pretrain("tiny"),
            ["chat a --image FILE", "export a DIR", second, parts, taken, "plot a"],
        ),
        (llava.finetune("tiny"), ["chat a --image FILE", "evaluate a --data FILE", "export a DIR", "plot a"]),
    ):
        (path / "recipe.yaml").write_text(recipe_to_yaml(recipe))
        lines = next_lines(executors.Run(path))
        shown = lines[1 : lines.index("  nemo-run plot a") + 1]
        assert [line.removeprefix("  nemo-run ") for line in shown] == expected
        assert max(map(len, shown)) <= 78


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({}, "llava.finetune size=7b model.projector.from_pretrained=a"),
        (
            {"model.language.from_pretrained": "own chat"},
            "llava.finetune size=7b model.language.from_pretrained='own chat' model.projector.from_pretrained=a",
        ),
        (
            {"model.language.from_pretrained": "own chat", "model.language.num_layers": "3"},
            "llava.finetune model.language='own chat' model.projector.from_pretrained=a",
        ),
        ({"model.language.from_pretrained": "none", "model.language.num_layers": "3"}, None),
        (
            {"data.image_folder": "pictures"},
            "llava.finetune size=7b data.data_path=FILE data.image_folder=DIR model.projector.from_pretrained=a",
        ),
    ],
)
def test_a_first_stage_leads_to_the_second_beside_the_same_parts(folder, fields, command):
    (folder / "own chat").mkdir()
    (folder / "own chat" / "config.json").write_text("{}")
    recipe = llava.pretrain()
    for path, value in fields.items():
        set_field(recipe, path, value)
    assert " ".join(second_stage(build(recipe), "a")) == (f"nemo-run {command}" if command else "")


def test_the_command_of_a_second_stage_has_no_findings_on_its_parts(make_run, capsys):
    path = make_run("a")
    recipe = llava.pretrain("tiny")
    recipe.data.tokenizer = "owner/name"
    for place in (path, *(path / "checkpoints").iterdir()):
        (place / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    _, _, command = "\n".join(next_lines(executors.Run(path))).partition("nemo-run llava.finetune ")
    # The shell drops a backslash at the end of a line with the line break, which shlex does not.
    words = shlex.split(command.partition("\n  nemo-run ")[0].replace("\\\n", " "))
    assert words[-1] == "model.projector.from_pretrained=a"
    words.remove("data.data_path=FILE")
    assert main(["llava.finetune", *words, "--dry-run"]) in (0, 2)
    told = capsys.readouterr().out.partition("Findings")[2]
    assert told and not [part for part in ("projector", "shape", "random") if part in told], told
