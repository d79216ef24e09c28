"""`nemo-run diff`: every field that differs and no other, and what it does."""

import dataclasses
import json
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import executors
from neva_recipes import gpt, llava
from neva_recipes.cli.commands.compare import figure_lines, number_text
from neva_recipes.cli.main import main
from neva_recipes.comparison import Figure, recipe_changes
from neva_recipes.config import VisionConfig, config, recipe_to_yaml, set_field


@pytest.fixture
def diff(folder, capfd):
    """Return a function that runs the command and returns what it printed."""

    def call(*arguments, code=0):
        assert main(["diff", *map(str, arguments)]) == code
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1) if code else err == ""
        return err if code else out

    return call


def leaves(plain, prefix=""):
    """Return a nested dictionary flat, without our code."""
    flat = {}
    for name, value in plain.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


CHANGES = {
    "optim.lr": ["2e-5", "1e-4"],
    "optim.warmup_ratio": ["0.03", "none"],
    "trainer.max_steps": ["5198", "7"],
    "data.data_path": ["none", "a file.json", "/an/absolute/path.json"],
    "data.conv_template": ["v1", "plain"],
    "model.recompute_modules": ["none", "mlp", "core_attn,mlp"],
    "model.vision.freeze": ["true", "false"],
    "logging.wandb_project": ["none", "p"],
    "name": ["llava.finetune", "x"],
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.fixed_dictionaries({}, optional={path: st.sampled_from(texts) for path, texts in CHANGES.items()}))
def test_changes_are_what_two_files_differ_in(overrides):
    old, new = llava.finetune(), llava.finetune()
    for path, text in overrides.items():
        set_field(new, path, text)
    before, after = (leaves(yaml.safe_load(recipe_to_yaml(recipe))) for recipe in (old, new))
    expected = {path: (before[path], after[path]) for path in before if before[path] != after[path]}
    assert {change.path: (change.old, change.new) for change in recipe_changes(old, new)} == {
        path: (float(old), float(new)) if path == "optim.lr" else (old, new) for path, (old, new) in expected.items()
    }
    assert not recipe_changes(new, new)


def test_groups_and_classes():
    seeing, blind = llava.finetune("tiny"), llava.finetune("tiny")
    blind.model.vision = blind.model.projector = None
    changes = recipe_changes(seeing, blind)
    assert {change.group for change in changes} == {"model.vision", "model.projector"}
    assert all(change.only_in == "old" for change in changes)
    assert len([change for change in changes if change.group == "model.vision"]) == len(
        VisionConfig.__dataclass_fields__
    )
    assert {change.only_in for change in recipe_changes(blind, seeing)} == {"new"}
    # A group made otherwise, but equal.
    seeing.model.vision = config(VisionConfig, **dict(seeing.model.vision.__arguments__))
    assert recipe_changes(seeing, llava.finetune("tiny")) == []


def test_what_it_prints(diff):
    printed = diff(
        "llava.finetune",
        "optim.lr=1e-5",
        "parallel.tensor_model_parallel_size=2",
        "optim.warmup_ratio=none",
        *("--gpu", "h100-80g"),
    )
    assert printed.startswith(
        """\
A: llava.finetune
B: llava.finetune optim.lr=1e-5 parallel.tensor_model_parallel_size=2
optim.warmup_ratio=none

3 fields differ (A -> B)
  parallel
    tensor_model_parallel_size 1 -> 2
  optim
    lr                         2e-05 -> 1e-05
    warmup_ratio               0.03 -> none

What it does                              A               B      change
  GPUs                                    8               8        same
  replicas (DP)                           8               4     -50.0 %
  microbatches a step                     4               8         x 2
  pipeline bubble                       0 %             0 %        same
  weights                     7,062,902,784   7,062,902,784        same
  trained weights             6,759,395,328   6,759,395,328        same
  memory of the fullest GPU"""
    )
    assert "Found in B alone\n  warning: sequence-parallel-off\n" in printed and "Found in A alone" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert not re.search(" $", printed, re.MULTILINE)


def test_fields_that_one_side_lacks(diff):
    printed = diff("llava.finetune", "gpt.pretrain")
    assert "  model.vision (not in B)\n    vision_model_type          clip\n" in printed
    assert "    class                      LlavaDataConfig -> TextDataConfig\n" in printed
    assert "    conv_template              v1 (not in B)\n" in printed
    back = diff("gpt.pretrain", "llava.finetune")
    assert "  model.vision (not in A)\n" in back and "    conv_template              v1 (not in A)\n" in back
    assert max(map(len, (printed + back).splitlines())) <= 80


def test_long_values_stand_below_each_other(diff):
    path = "/" + "long/" * 14 + "train.json"
    printed = diff("llava.finetune", f"data.data_path={path}")
    assert f"  data\n    data_path\n        llava_v1_5_mix665k.json\n     -> {path}\n" in printed
    assert f"\ndata.data_path={path}\n" in printed


def test_equal_recipes(diff, folder):
    (folder / "a = b.yaml").write_text(recipe_to_yaml(llava.finetune("13b")))
    said = "\n\nThe recipes are equal.\n"
    assert diff("llava.finetune", "llava.finetune").endswith(said)
    assert diff("./a = b.yaml", "llava.finetune", "size=13b") == (f"A: ./a = b.yaml\nB: llava.finetune size=13b{said}")
    assert diff("llava.finetune", "optim.lr=2e-5").endswith(said)
    document = json.loads(diff("llava.finetune", "llava.finetune", "--format", "json"))
    assert document["changes"] == [] and document["a"] == document["b"]


def test_json(diff):
    words = ["parallel.pipeline_model_parallel_size=2", "data.global_batch_size=64", "--gpu", "a100-40g"]
    document = json.loads(diff("llava.finetune", "gpt.pretrain", *words, "--format", "json"))
    changes = {change.pop("path"): change for change in document["changes"]}
    assert changes["data.global_batch_size"] == {"old": 128, "new": 64}
    assert changes["data.class"] == {"old": "LlavaDataConfig", "new": "TextDataConfig"}
    assert changes["data.conv_template"] == {"old": "v1"} and "model.vision" not in changes
    # 8 GPUs in 2 stages of tensor-parallel pairs: two replicas share 64 rows, 4 at a time.
    layout = document["b"]["plan"]["layout"]
    assert (layout["data_parallel_size"], layout["num_microbatches"]) == (2, 8)
    assert layout["bubble"] == pytest.approx(1 / 9)
    assert document["b"]["plan"]["gpu"]["name"] == "a100-40g"
    assert document["a"]["recipe"] == "llava.finetune" and document["b"]["recipe"].startswith("gpt.pretrain parallel.")


def test_a_recipe_that_cannot_run_is_compared_too(diff):
    printed = diff("llava.finetune", "parallel.tensor_model_parallel_size=3", "--gpu", "h100-80g")
    assert "  GPUs                                    8               -\n" in printed
    assert "Found in B alone\n  error: " in printed


def test_what_the_data_files_of_one_side_show_is_told_but_not_what_is_missing_here(diff, folder):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    (folder / "own.json").write_text(json.dumps([{"conversations": turns}]))
    mine = ["llava.finetune", "size=tiny", "data.data_path=own.json"]
    printed = diff(*mine, "--", *mine, "data.validation_data_path=own.json")
    assert "Found in B alone\n  warning: validation-is-training\n" in printed and "Found in A alone" not in printed
    assert "alone" not in diff(*mine, "--", *mine, "data.validation_data_path=nowhere.json")


def test_of_a_file_of_recipes(diff, folder):
    (folder / "mine.py").write_text(
        "from neva_recipes import llava\n\ndef digits(steps: int = 5):\n"
        "    recipe = llava.finetune('tiny')\n    recipe.trainer.max_steps = steps\n    return recipe\n"
    )
    printed = diff("digits", "steps=9", "--recipes", "mine.py")
    assert "1 field differs (A -> B)\n  trainer\n    max_steps 5 -> 9\n" in printed


@pytest.mark.parametrize("command", [["diff"], ["fit", "--gpus", "8"]], ids=lambda words: words[0])
def test_a_name_of_both_a_recipe_and_a_run_is_told(command, folder, capfd):
    """It is the recipe; a run whose name is that of a recipe is named by its directory."""
    for moment in ("20260101-000000", "20260102-000000"):
        run = folder / "runs" / f"gpt.pretrain-{moment}"
        run.mkdir(parents=True)
        job = executors.plan_job(gpt.pretrain("tiny"))
        (run / "job.json").write_text(dataclasses.replace(job, created=f"{moment[:8]}T000000+00:00").to_json())
    assert main([*command, "gpt.pretrain", "optim.lr=0.5"]) == 0
    out, err = capfd.readouterr()
    assert "gpt.pretrain" in out and err == (
        "note: gpt.pretrain is a recipe and the name of a run: the recipe is taken; "
        "gpt.pretrain-20260102-000000 names the run\n"
    )
    assert main([*command, "llava.finetune", "optim.lr=0.5"]) == 0
    assert "names the run" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["required", "nemo-run diff --help"]),
        (["llava.finetune"], ["takes A and B, or A and key=value"]),
        (["a", "b", "c"], ["takes A and B"]),
        (["optim.lr=1"], ["takes A and B"]),
        (["llava.finetune", "llava.finetne"], ["llava.finetne: no such recipe", "did you mean llava.finetune"]),
        (["nothing", "llava.finetune"], ["nothing: no such recipe, saved recipe (.yaml) or run", "nemo-run status"]),
        (["no.yaml", "llava.finetune"], ["no.yaml: no such file"]),
        (["llava.finetune", "optim.lrr=1"], ["optim.lrr: no such field", "did you mean optim.lr"]),
        (["llava.finetune", "siz=7b"], ["siz: llava.finetune has no such parameter"]),
        (["llava.finetune", "size=tiny", "--gpu", "x100"], ["--gpu x100: expected one of"]),
        (["llava.finetune", "size=tiny", "--format", "html"], ["--format", "'text', 'json'"]),
        (["x", "y", "--recipes", "no.py"], ["no.py: no such file"]),
    ],
)
def test_wrong_input(arguments, parts, diff):
    said = diff(*arguments, code=2)
    assert said.startswith("error: ") and all(part in said for part in parts)


def test_each_side_can_have_its_own_changes(diff):
    shown = diff("llava.finetune", "size=tiny", "optim.lr=0.5", "--", "llava.pretrain", "size=tiny", "optim.lr=0.25")
    assert shown.startswith("A: llava.finetune size=tiny optim.lr=0.5\nB: llava.pretrain size=tiny optim.lr=0.25\n")
    assert re.search(r"^    lr +0.5 -> 0.25$", shown, re.MULTILINE) and "num_layers" not in shown
    same = diff("llava.finetune", "size=tiny", "--", "optim.lr=0.5", "size=tiny")
    assert "1 field differs (A -> B)\n  optim\n    lr 0.001 -> 0.5\n" in same
    turned = diff("llava.finetune", "optim.lr=0.5", "--", "llava.finetune")
    assert "    lr 0.5 -> 2e-05\n" in turned
    for words in (
        ["--"],
        ["llava.finetune", "--"],
        ["--", "optim.lr=1"],
        ["a", "b", "--", "c"],
        ["a", "--", "b", "--"],
    ):
        assert "nemo-run diff takes A and B, or A and key=value" in diff(*words, code=2)


@pytest.mark.parametrize(
    ("unit", "old", "new", "expected"),
    [
        ("%", 1.1e-14, 0.0, ["0 %", "0 %", "same"]),
        ("%", -1.1e-14, 0.0, ["0 %", "0 %", "same"]),
        ("%", 3.0712, 3.0713, ["3.07 %", "3.07 %", "same"]),
        ("%", 0.031, 0.044, ["0.03 %", "0.04 %"]),
        ("s", 7.7000001, 7.7, ["7.7 s", "7.7 s", "same"]),
        ("", 1016192, 1016193, ["1,016,192", "1,016,193", "< 0.1 %"]),
        ("", 1016193, 1016192, ["1,016,193", "1,016,192", "< 0.1 %"]),
        ("nats", 0.5, 0.4995, ["0.5 nats", "0.4995 nats", "-0.1 %"]),
        ("nats", 0.0, 0.5, ["0 nats", "0.5 nats"]),
    ],
)
def test_what_is_printed_alike_is_the_same(unit, old, new, expected):
    _, line = figure_lines([Figure("x", unit, old)], [Figure("x", unit, new)])
    assert re.split(" {2,}", line.strip()) == ["x", *expected]
    assert number_text(Figure("x", unit, old)) == expected[0]


def test_on_a_cpu_no_figures_of_a_gpu(diff):
    shown = diff("llava.finetune", "size=tiny", "--", "llava.pretrain", "size=tiny")
    assert "  weights and optimizer          0.0184 GiB      0.0074 GiB     x 0.402\n" in shown
    assert not re.search("memory of|time of|GPU hours|h100", shown)
    assert "  memory and time are not known for a CPU: --gpu NAME tells them for a GPU\n" in shown
    shown = diff("llava.finetune", "size=tiny", "--", "llava.pretrain", "size=tiny", "--gpu", "h100-80g")
    assert "memory of the fullest GPU" in shown and "on GPUs of 79.1 GiB, h100-80g\n" in shown
