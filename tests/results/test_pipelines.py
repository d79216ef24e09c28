"""Pipelines and sweeps that have ended: what to do next with them, and commands that take one run of them."""

import json

import pytest

import executors
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.cli.report.finish import next_lines
from neva_recipes.config import RecipeError
from tests.results.written_runs import write_metrics


@pytest.fixture
def make_pipeline(make_run, folder):
    """A function that writes a pipeline of stages that have trained, or a sweep of points with their settings."""

    def make(name, stages):
        path = make_run(name)
        (path / "recipe.yaml").unlink()
        for part in ("checkpoints", "metrics"):
            for file in sorted((path / part).rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
        (path / "stages").mkdir()
        for number, stage in enumerate(stages):
            make_run(f"{name} {stage}", shift=0.1 * (number % 3)).rename(path / "stages" / stage)
        spec = [{"name": stage, "after": [], "settings": settings} for stage, settings in stages.items()]
        (path / "pipeline.json").write_text(json.dumps({"schema": 1, "name": name, "parallel": 1, "stages": spec}))
        return path

    return make


@pytest.fixture
def pipe(make_pipeline):
    """A pipeline whose last stage trains nothing."""
    path = make_pipeline("pipe", {"one": {}, "two": {}, "export": {}})
    (path / "stages" / "export" / "recipe.yaml").unlink()
    (path / "stages" / "export" / "checkpoints").rename(path / "stages" / "export" / "exported")
    return path


@pytest.fixture
def sweep(make_pipeline):
    """A sweep whose third point has the highest losses, and the first the lowest."""
    return make_pipeline("sw", {"1": {"optim.lr": "1e-3", "size": "7b"}, "2": {"optim.lr": "2e-3"}, "3": {"a": "4"}})


def test_the_accuracy_stands_below_the_stages(pipe, capsys):
    report = {"model": "/m/step-00000040", "data": "/d/held_out.json", "questions": 40, "correct": 37}
    for stage in ("export", "two"):  # what trains has been asked by others too
        (pipe / "stages" / stage / "evaluation.json").write_text(json.dumps({**report, "accuracy": 0.925}))
    (pipe / "stages" / "export").rename(pipe / "stages" / "evaluate")
    spec = (pipe / "pipeline.json").read_text()
    (pipe / "pipeline.json").write_text(spec.replace('"export"', '"evaluate"'))
    for command in ("status", "show"):
        assert main([command, "pipe"]) == 0
        lines = [line.strip() for line in capsys.readouterr().out.splitlines() if " right: " in line]
        assert lines == ["evaluate: 92.50% of 40 right: held_out.json, step-00000040"]


def test_the_last_trained_stage_is_what_to_go_on_with(pipe):
    assert next_lines(executors.Run(pipe)) == [
        "next:",
        "  nemo-run chat pipe/two --image FILE",
        "  nemo-run evaluate pipe/two --data FILE",
        "  nemo-run plot pipe",
        "exported:",
        "  runs/pipe/stages/export/exported",
    ]
    (pipe / "stages" / "export" / "exported").rename(pipe / "stages" / "export" / "other")
    assert next_lines(executors.Run(pipe))[2:] == [
        "  nemo-run evaluate pipe/two --data FILE",
        "  nemo-run export pipe/two DIR",
        "  nemo-run plot pipe",
    ]


def test_the_best_point_of_a_sweep_is_what_to_go_on_with(sweep):
    lines = next_lines(executors.Run(sweep))
    assert lines[1] == "  nemo-run chat sw/1 --image FILE"
    assert lines[4:] == ["  nemo-run plot sw", "sw/1 has the lowest val loss at its end, 0.3400"]
    # The validation loss decides, whatever the training loss is.
    write_metrics(sweep / "stages" / "3", {7: {"reduced_train_loss": 9.0, "val_loss": 0.25}})
    assert next_lines(executors.Run(sweep))[-1] == "sw/3 has the lowest val loss at its end, 0.2500"
    for point, loss in (("1", 3.0), ("2", 2.5), ("3", 2.75)):
        write_metrics(sweep / "stages" / point, {7: {"reduced_train_loss": loss}})
    lines = next_lines(executors.Run(sweep))
    assert (lines[1].split()[2], lines[-1]) == ("sw/2", "sw/2 has the lowest train loss at its end, 2.5000")


def test_a_legend_says_what_the_points_of_a_sweep_are(make_pipeline, capsys):
    make_pipeline("rates", {"1": {"optim.lr": "1e-3"}, "2": {"optim.lr": "2e-3"}})
    legend = {}
    for words in (["rates"], ["rates/1", "rates/2"]):
        assert main(["plot", "--metric", "loss", *words]) == 0
        shown = [line.split() for line in capsys.readouterr().out.splitlines()]
        legend[words[0]] = [line[1:3] for line in shown if line and line[0] in ("RUN", "rates/1", "rates/2", "1", "2")]
    assert legend["rates"] == [["optim.lr", "reduced_train_loss"], ["1e-3", "a"], ["2e-3", "b"]]
    assert [row[0] for row in legend["rates/1"]] == ["optim.lr", "1e-3", "2e-3"]


@pytest.mark.parametrize("word", ["alone", "runs/alone", "runs/alone/", "pipe", "pipe/one"])
def test_the_name_of_a_run_in_place_of_a_recipe(word, pipe, make_run, capsys):
    make_run("alone")
    name = word.removeprefix("runs/").rstrip("/")
    for words in ([], ["optim.lr=1e-4", "--dry-run"]):
        assert main([word, *words]) == 2
        assert capsys.readouterr().err == (
            f"error: {word}: is a run and no recipe: nemo-run rerun {name} starts it anew, nemo-run resume {name} goes "
            "on with it\n"
        )


@pytest.mark.parametrize("file", ["pipe/stages/two/recipe.yaml", "alone/recipe.yaml", "pipe/pipeline.json"])
def test_what_cannot_be_read_does_not_fail_a_run_that_has_succeeded(file, pipe, make_run, folder):
    make_run("alone")
    (folder / "runs" / file).write_text("name: [")
    (line,) = next_lines(executors.Run(folder / "runs" / file.partition("/")[0]))
    assert line.startswith(f"what can be done next is not known: {folder / 'runs' / file}: ") and "\n" not in line


PIPE = "pipe: is a pipeline: name one of its stages: pipe/one, pipe/two"
SWEEP = "sw: is a sweep: name one of its points: sw/1 (optim.lr=1e-3 size=7b), sw/2 (optim.lr=2e-3), sw/3 (a=4)"


@pytest.mark.parametrize(
    "command",
    [
        ["chat", "NAME"],
        ["evaluate", "NAME", "--data", "x.json"],
        ["export", "NAME", "x"],
        ["diff", "NAME", "llava.finetune"],
        ["fit", "NAME", "--gpus", "8"],
    ],
    ids=lambda words: words[0],
)
def test_commands_for_one_run_name_the_runs_there_are(command, pipe, sweep, capsys):
    for name, told in (("pipe", PIPE), ("sw", SWEEP)):
        assert main([name if word == "NAME" else word for word in command]) == 2
        assert capsys.readouterr() == ("", f"error: {told}\n")


def test_a_rerun_of_a_stage_is_a_run_by_itself(pipe, folder, capsys):
    for more, name in (([], "llava.finetune"), (["--name", "again"], "again")):
        assert main(["rerun", "pipe/one", "data.tokenizer=owner/name", *more, "--dry-run"]) == 0
        text = capsys.readouterr().out
        (path,) = {word for word in text.split() if word.startswith(f"{folder / 'runs'}/{name}-")}
        assert "/" not in path.removeprefix(f"{folder / 'runs'}/")


def test_what_a_recipe_starts_from_is_one_run(pipe, folder):
    recipe = llava.finetune("tiny")
    for name in ("pipe", "runs/pipe"):
        recipe.model.language.from_pretrained = name
        with pytest.raises(RecipeError) as raised:
            executors.settle(recipe)
        told = f"{name}: is a pipeline: name one of its stages: {name}/one, {name}/two"
        assert str(raised.value) == f"model.language.from_pretrained={told}"


def test_of_many_points_a_few_are_named_and_words_are_ready_for_a_shell(make_pipeline, capsys):
    make_pipeline("a b", {str(number): {"x": str(number)} for number in range(1, 8)})
    assert main(["chat", "a b"]) == 2
    told = capsys.readouterr().err
    assert "points: 'a b/1' (x=1), 'a b/2' (x=2)," in told
    assert told.endswith(", 'a b/5' (x=5) (and 2 more: nemo-run status 'a b')\n")
