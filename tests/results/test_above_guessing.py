"""A run that ends with a loss above that of guessing is said to, wherever its end is told; any other run is not."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import executors
from executors.pipelines.directory import stage_statuses, stage_table
from neva_recipes import gpt
from neva_recipes.cli.main import main
from neva_recipes.cli.report.finish import finish
from neva_recipes.config import recipe_to_yaml, set_field
from tests.results.written_runs import write_metrics

ADVICE = "lower optim.lr, look at the curve, check the data"
# The recipe of the runs here has 512 tokens, whose logarithm is 6.238.
MEASURE = "median of the last training losses"
LINE = f"its {MEASURE} is 212.3, worse than guessing each token, which gives a loss of 6.24, ln 512: {ADVICE}"


def train_losses(*values):
    return {10 * (number + 1): {"reduced_train_loss": value} for number, value in enumerate(values)}


@pytest.fixture
def bad(make_run):
    path = make_run("bad")
    write_metrics(path, train_losses(6.3, 500, 212, 213, 212.3, 212, 212.5))
    return path


def test_the_end_of_the_command_says_it_before_what_is_next(bad, capsys):
    assert finish(executors.Run(bad), False) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"bad succeeded: {bad}", f"warning: bad: {LINE}"]
    assert lines[2] == "next:"


def test_status_and_show_say_it(bad, capsys):
    assert main(["status", "bad"]) == 0
    assert f"warnings:  {LINE}" in capsys.readouterr().out
    assert main(["show", "bad"]) == 0
    results = capsys.readouterr().out.partition("Results\n")[2].partition("\n\n")[0]
    assert f"warning:   {LINE}" in results
    assert main(["status", "bad", "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)["results"]["above_guessing"]
    assert said == {"loss": pytest.approx(212.3), "measure": MEASURE, "vocab_size": 512}


def test_the_table_of_stages_says_it(bad, make_run, capsys, monkeypatch):
    path = make_run("sweep")
    (path / "recipe.yaml").unlink()
    (path / "stages").mkdir()
    names = ["1", "2", "3", "4", "5"]
    for name in names:
        make_run(f"point {name}").rename(path / "stages" / name)
        if name != "2":
            write_metrics(path / "stages" / name, train_losses(6.3, 100 * int(name)))
    spec = [{"name": name, "after": [], "settings": {}} for name in names]
    (path / "pipeline.json").write_text(json.dumps({"schema": 1, "name": "sweep", "parallel": 1, "stages": spec}))
    line = f"warning: 1, 3, 4 and 1 more: worse than guessing each token, which gives a loss of 6.24, ln 512: {ADVICE}"
    with monkeypatch.context() as patched:  # nobody who only asks for states waits for the recipes
        patched.setattr("executors.pipelines.directory.read_above_guessing", None)
        statuses = stage_statuses(path)
    assert stage_table(statuses)[6:] == [line]
    for command in ("status", "show"):
        assert main([command, "sweep"]) == 0
        assert capsys.readouterr().out.count(line) == 1


@pytest.mark.parametrize(
    "rows",
    [
        train_losses(6.3, 6.29, 6.28),  # has just begun
        train_losses(8.0, 6.2, 6.1, 6.0, 6.0, 30.0),  # one hard batch
        train_losses(300, 200, 5, 4, 3, 2, 1),  # an early peak
        train_losses(6.3) | {20: {"reduced_train_loss": 90.0, "val_loss": 5.0}},  # what was validated counts
        {10: {"val_loss": 90.0}},
        {},
    ],
)
def test_other_runs_are_not_told_of(make_run, rows):
    path = make_run("a")
    write_metrics(path, rows)
    assert executors.Run(path).results().above_guessing is None


def test_the_validation_at_the_end_counts(make_run):
    path = make_run("a")
    write_metrics(path, train_losses(6.3) | {20: {"reduced_train_loss": 1.0, "val_loss": 90.0}})
    above = executors.Run(path).results().above_guessing
    assert above.line.startswith("its last validation loss is 90, worse than guessing each token, ")
    write_metrics(path, {10: {"val_loss": 90.0}} | {20: {"reduced_train_loss": 1.0}})
    assert executors.Run(path).results().above_guessing is None


def test_a_run_whose_recipe_cannot_be_read_is_not_judged(bad):
    (bad / "recipe.yaml").write_text("no: recipe")
    assert executors.Run(bad).results().above_guessing is None


def untrained_loss(width, tokens, deviation, is_shared):
    """Return the loss of random rows on normalised states: by drawing them, not by a formula."""
    draw = np.random.default_rng(0)
    rows = deviation * draw.standard_normal((tokens, width))
    seen, wanted = draw.integers(tokens, size=(2, 200))
    states = rows[seen] if is_shared else draw.standard_normal((200, width))
    states = states / np.sqrt((states**2).mean(1, keepdims=True))
    logits = states @ rows.T
    top = logits.max(1, keepdims=True)
    whole = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return float((whole - logits[np.arange(200), wanted]).mean())


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("deviation", [0.02, 0.05])
def test_untrained_weights_are_above_guessing_and_nothing_is_wrong(make_run, deviation, is_shared):
    width, tokens = 2048, 1000
    recipe = gpt.pretrain("tiny")
    language = {"hidden_size": width, "vocab_size": tokens, "init_method_std": deviation}
    for name, value in {**language, "share_embeddings_and_output_weights": is_shared}.items():
        set_field(recipe, f"model.language.{name}", str(value).lower())
    path = make_run("a")
    (path / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    loss = untrained_loss(width, tokens, deviation, is_shared)
    assert loss > math.log(tokens) + 0.2
    write_metrics(path, train_losses(loss))
    assert executors.Run(path).results().above_guessing is None
    write_metrics(path, train_losses(1.5 * loss))
    assert executors.Run(path).results().above_guessing is not None


def test_nothing_is_imported_that_trains(bad):
    """In a process of its own: other tests of the same process may have imported anything."""
    code = (
        "import sys, pathlib, executors\n"
        "print(executors.Run(pathlib.Path(sys.argv[1])).results().above_guessing is not None, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, bad], capture_output=True, text=True, check=True)
    is_told, *modules = done.stdout.split()
    assert is_told == "True"
    assert not {"torch", "megatron", "transformers"} & set(modules)
