"""The commands: a pipeline of one's own from a file, looked at, run, shown, continued; wrong overrides."""

import json
import re
import shlex
import textwrap

import pytest

from executors import find_run
from neva_recipes.cli.main import main
from neva_recipes.config import load_recipe, recipe_to_yaml, set_field
from neva_recipes.storage.checkpoints import record_text
from tests.pipelines.recipes import make_recipe

PIPELINES = """
    from executors import Export, Pipeline, Stage
    from neva_recipes.config import config
    from tests.pipelines.recipes import make_recipe

    def mine(steps: int = 5) -> Pipeline:
        '''Two stages of my own.

        Args:
            steps: How long the first one is.
        '''
        first = Stage("first", make_recipe("one", max_steps=steps))
        recipe = make_recipe("two")
        second = Stage("second", recipe)
        return Pipeline("mine", first >> second >> Stage("export", config(Export, model=first.output)))

    def wrong() -> Pipeline:
        return 3
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "lab.py"
    file.write_text(textwrap.dedent(PIPELINES))
    return ["--recipes", str(file)]


def test_overrides_of_one_stage_go_before_those_of_all(mine, runs_dir, starts, capfd):
    words = ["steps=7", "first.optim.lr=0.005", "optim.lr=0.0025", "trainer.seed=3"]
    assert main(["mine", *words, *mine, "--runs-dir", str(runs_dir)]) == 0
    (directory,) = [path for path in runs_dir.iterdir() if path.is_dir()]
    recipes = [load_recipe(directory / "stages" / name / "recipe.yaml") for name in ("first", "second")]
    assert [(r.optim.lr, r.trainer.seed, r.trainer.max_steps) for r in recipes] == [(0.005, 3, 7), (0.0025, 3, 1)]
    captured = capfd.readouterr()
    assert "--- export succeeded" in captured.out
    assert captured.err.splitlines() == [
        f"{directory.name} succeeded: {directory}",
        "next:",
        f"  nemo-run plot {directory}",
    ]
    assert main(["status", "mine", "--runs-dir", str(runs_dir)]) == 0
    table = capfd.readouterr().out.partition("STAGE ")[2].splitlines()[1:]
    assert [row.split()[:2] for row in table] == [[name, "succeeded"] for name in ("first", "second", "export")]
    assert main(["logs", "mine/second", "--runs-dir", str(runs_dir)]) == 0
    assert capfd.readouterr().out == "second works\n"


def test_a_value_for_all_stages_that_none_takes_is_an_error(mine, runs_dir, starts, capfd):
    place = ["--runs-dir", str(runs_dir)]
    own = ["first.trainer.max_steps=2", "second.trainer.max_steps=3"]
    error = (
        "error: trainer.max_steps=9 takes effect in no stage: first and second have values of their own; "
        "leave it out, or the values of the stages\n"
    )
    assert main(["mine", "trainer.max_steps=9", *own, *mine, *place, "--dry-run"]) == 2
    assert capfd.readouterr() == ("", error)
    assert main(["mine", *own, *mine, *place]) == 0
    capfd.readouterr()
    assert main(["rerun", "mine", *own, "trainer.max_steps=9", *place, "--dry-run"]) == 2
    assert capfd.readouterr() == ("", error)
    assert main(["rerun", "mine", own[0], "trainer.max_steps=9", *place, "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert "trains one: 1 process, 2 steps" in out and "trains two: 1 process, 9 steps" in out


def test_a_pipeline_tells_its_warnings_once_and_keeps_the_type_of_gpu(mine, runs_dir, starts, capfd):
    words = ["optim.lr_decay_style=constant", "optim.min_lr=1e-5", "--gpu", "A100_40GB", *mine]
    place = ["--runs-dir", str(runs_dir)]
    assert main(["mine", *words, *place]) == 0
    told = capfd.readouterr().err.splitlines()
    (warning,) = [line for line in told if line.startswith("warning: ")]
    assert told[0] == warning
    assert warning.startswith("warning: first, second: optim.min_lr=1e-05")
    (directory,) = [path for path in runs_dir.iterdir() if path.is_dir()]
    plans = [json.loads((directory / "stages" / name / "plan.json").read_text()) for name in ("first", "second")]
    assert [(plan["gpu"]["name"], plan["gpu_assumed"]) for plan in plans] == [("a100-40g", False)] * 2
    assert main(["status", directory.name, *place]) == 0
    assert warning.removeprefix("warning: ") in capfd.readouterr().out
    assert main(["mine", *words, "--quiet", *place, "--name", "again"]) == 0
    assert "warning" not in capfd.readouterr().err


def test_a_pipeline_goes_on_with_another_type_of_gpu(mine, runs_dir, starts):
    (runs_dir / "fail second").touch()
    place = ["--runs-dir", str(runs_dir)]
    assert main(["mine", *mine, *place]) == 3
    (runs_dir / "fail second").unlink()
    assert main(["resume", "mine", "--gpu", "b300", *place]) == 2
    assert main(["resume", "mine", "--gpu", "A100_40GB", *place]) == 0
    (directory,) = [path for path in runs_dir.iterdir() if path.is_dir()]
    plans = [json.loads((directory / "stages" / name / "plan.json").read_text()) for name in ("first", "second")]
    assert [plan["gpu"]["name"] for plan in plans] == ["h100-80g", "a100-40g"]


def test_a_failed_pipeline_says_what_goes_on_with_it(mine, runs_dir, starts, capfd):
    (runs_dir / "fail second").touch()
    assert main(["mine", *mine, "--runs-dir", str(runs_dir)]) == 3
    (directory,) = [path for path in runs_dir.iterdir() if path.is_dir()]
    assert capfd.readouterr().err.splitlines() == [
        f"error: run {directory.name} failed: second failed: rank 0 exited with code 3; not run: export",
        f"nemo-run resume {directory} goes on with what is not done",
    ]
    (runs_dir / "fail second").unlink()
    place = ["--runs-dir", str(runs_dir)]
    for field, stage in (("second.optim.lr", "second"), ("optim.lr", "STAGE")):
        assert main(["resume", "mine", f"{field}=0.125", *place]) == 2
        assert capfd.readouterr().err == (
            f"error: {field}=0.125: a pipeline goes on as it was started: change a stage by itself, nemo-run resume "
            f"{directory}/{stage} optim.lr=0.125, then go on: nemo-run resume {directory}\n"
        )
    assert main(["resume", "mine/second", "optim.lr=0.125", *place]) == 0
    assert main(["resume", "mine", *place]) == 0
    assert starts() == ["first", "second", "second", "export"]
    assert load_recipe(directory / "stages" / "second" / "recipe.yaml").optim.lr == 0.125


def test_a_dry_run_shows_where_inputs_come_from_and_writes_nothing(mine, runs_dir, capsys):
    assert main(["mine", "second.optim.lr=0.5", *mine, "--runs-dir", str(runs_dir), "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "mine: 3 stages",
        "",
        "first",
        "  trains one: 1 process, 5 steps",
        "  memory  0.0 MiB of weights, gradients and optimizer in a process",
        "  tokens  384 a step, 1.92 k the run",
        "",
        "second, after first",
        "  trains two: 1 process, 1 step",
        "  memory  0.0 MiB of weights, gradients and optimizer in a process",
        "  tokens  384 a step, 384 the run",
        "  optim.lr=0.5",
        "",
        "export, after second",
        "  runs export",
        "  model=first.output",
    ]
    assert list(runs_dir.iterdir()) == []


def test_a_dry_run_as_a_page(mine, runs_dir, capsys):
    words = ["mine", "second.optim.lr=0.5", *mine, "--runs-dir", str(runs_dir), "--dry-run", "--format", "html"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("<!DOCTYPE html>") and captured.out.endswith("</html>\n")
    assert "<h2>second, after first</h2>" in captured.out and "second.optim.lr=0.5 --recipes" in captured.out
    warning, note = captured.err.splitlines()
    assert note == "note: --dry-run wrote and started nothing" and warning.startswith("warning: second: optim.lr=0.5")
    assert list(runs_dir.iterdir()) == []
    sweep = ["gpt.pretrain", "size=tiny", "optim.lr=1,2", "--sweep", "--dry-run", "--format", "html"]
    assert main(sweep) == 2
    assert capsys.readouterr().err == (
        "error: --format html: a sweep is shown as text; its points are recipes to look at\n"
    )


def test_a_checkpoint_is_verified_by_the_name_of_its_stage(tmp_path, capsys):
    (tmp_path / "pipeline.json").write_text("{}")
    for stage in ("first", "second"):
        checkpoint = tmp_path / "stages" / stage / "checkpoints" / "step-5"
        checkpoint.mkdir(parents=True)
        (checkpoint / "checkpoint.json").write_text(record_text({"files": {}, "digests": {}}))
    assert main(["verify", str(tmp_path)]) == 0
    named = [line.partition("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert named == ["first/step-5", "second/step-5"]
    assert main(["verify", str(checkpoint)]) == 0
    assert capsys.readouterr().out.startswith("step-5  ")


def test_pipelines_are_listed_and_explained(mine, capsys):
    assert main(["list", *mine]) == 0
    listed = capsys.readouterr().out
    assert "  lab.mine   Two stages of my own.\n" in listed
    assert "  llava.pipeline  " in listed
    assert main(["mine", "--help", *mine]) == 0
    shown = capsys.readouterr().out
    assert "How long the first one is." in shown
    assert "stage export, after second:" in shown
    flags = {line.split()[0] for line in shown.splitlines() if line.startswith("  --")}
    assert "--parallel" in flags
    of_recipes = {
        "--sweep": (),
        "--config": ("x.yaml",),
    }
    for flag, value in of_recipes.items():  # what is refused is not offered
        assert flag not in flags and main(["mine", flag, *value, *mine]) == 2
    assert "with --dry-run: text or html (text)" in " ".join(shown.split())


WRONG = {
    ("fist.optim.lr=1",): "fist.optim.lr: lab.mine has no stage fist (did you mean first?)",
    ("stps=1",): "stps: lab.mine has no parameter stps (did you mean steps?)",
    ("first.optim.lx=1",): "first: optim.lx: no such field",
    ("optim.lr=x",): "first: optim.lr='x': expected a number > 0",
    ("second.trainer.max_steps=0",): "second: trainer.max_steps='0': expected",
    ("export.modell=x",): "export: modell: no such field (did you mean model?)",
    ("second.data.data_path=gone.txt",): "second: data.data_path=gone.txt: no such file",
    ("first.trainer.num_nodes=2",): "first: trainer.num_nodes=2",
    ("--parallel", "0"): "argument --parallel: '0': expected an integer >= 1",
    ("--sweep",): "--sweep: goes with a recipe, not with a pipeline",
    ("--format", "json", "--dry-run"): "--format json: a pipeline is shown as text",
    ("--name", "a/b"): "name='a/b': a run's name cannot hold '/'",
    ("--name", "latest"): "name='latest': commands take this word for the newest run: choose another name",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_mistake_is_one_line_and_nothing_is_written(words, mine, runs_dir, capsys):
    assert main(["mine", *words, *mine, "--runs-dir", str(runs_dir)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {WRONG[words]}")
    assert list(runs_dir.iterdir()) == []


def test_what_says_it_returns_a_pipeline_must(mine, capsys):
    assert main(["wrong", *mine]) == 2
    assert capsys.readouterr().err == (
        "error: lab.wrong returned a value of type int: it says that it returns a Pipeline\n"
    )


def test_parallel_and_sweep_want_something_to_work_on(capsys):
    assert main(["gpt.pretrain", "--parallel", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: --parallel: goes with --sweep or a pipeline")
    assert main(["llava.pipeline", "size=tiny", "--dry-run"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "error: evaluate: data is not set: expected a path or a list, each a path; add evaluate.data=FILE" in told
    assert told[-2:] == [
        "note: a launch from this machine would be refused: file-not-set",
        "note: --dry-run wrote and started nothing",
    ]
    # What is to be typed names its stage: without it, it would be set in every recipe.
    for stage in ("pretrain", "finetune"):
        line = f"{stage}: data.data_path=none: names no file to train on; add {stage}.data.data_path=FILE"
        assert f"note: {line}" in told


def test_files_of_another_machine_are_notes_in_a_pipeline_too(mine, runs_dir, capsys):
    """As of a recipe: its dry run says that a launch from here would be refused, and for what."""
    words = ["mine", "second.data.data_path=gone.txt", "export.model=gone", *mine, "--runs-dir", str(runs_dir)]
    assert main([*words, "first.optim.lr=0.5", "first.trainer.num_nodes=2", "--dry-run"]) == 0
    *notes, warning, refused, closing = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in notes[1:]] == [
        "note: second: data.data_path=gone.txt: no such file",
        "note: export: model=gone: no such file or folder",
    ]
    assert notes[0].startswith("note: first: trainer.num_nodes=2") and warning.startswith("warning: first: optim.lr")
    assert refused == "note: a launch from this machine would be refused: executor, file-missing"
    assert closing == "note: --dry-run wrote and started nothing"
    assert main([*words, "--dry-run", "--format", "html"]) == 0
    assert "<p>a launch from this machine would be refused: file-missing</p>" in capsys.readouterr().out
    # An error stands below all of them, nearest to the prompt, but for what closes the text.
    assert main([*words, "first.model.language.num_attention_heads=3", "--dry-run"]) == 2
    *before, error, refused, closing = capsys.readouterr().err.splitlines()
    assert error.startswith("error: first: ") and not any(line.startswith("error: ") for line in [*before, refused])
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: second: data.data_path=gone.txt: no such file")
    assert list(runs_dir.iterdir()) == []


def test_a_pipeline_is_run_again_from_the_stages_it_has(mine, runs_dir, starts, capfd):
    place = ["--runs-dir", str(runs_dir)]
    assert main(["mine", "steps=7", "trainer.seed=3", *mine, *place]) == 0
    (old,) = [path for path in runs_dir.iterdir() if path.is_dir()]
    export = json.loads((old / "stages" / "export" / "tool.json").read_text())
    recipes = {name: load_recipe(old / "stages" / name / "recipe.yaml") for name in ("first", "second")}
    capfd.readouterr()
    # What a stage takes from an earlier one, it takes from the new one.
    changed = load_recipe(old / "stages" / "second" / "recipe.yaml")
    set_field(changed, "data.tokenizer", str(old / "stages" / "first"))
    (old / "stages" / "second" / "recipe.yaml").write_text(recipe_to_yaml(changed))
    assert main(["rerun", "mine", "second.optim.lr=0.001", "--dry-run", *place]) == 0
    shown = capfd.readouterr().out
    assert shown.startswith("mine: 3 stages\n") and "second, after first\n" in shown
    assert "  data.tokenizer=first.output\n" in shown and "  model=first.output\n" in shown
    assert len([path for path in runs_dir.iterdir() if path.is_dir()]) == 1
    (old / "stages" / "second" / "recipe.yaml").write_text(recipe_to_yaml(recipes["second"]))

    assert main(["rerun", "mine", "second.optim.lr=0.001", "--name", "again", *place]) == 0
    new = find_run("again", runs_dir).path
    assert starts() == ["first", "second", "export"] * 2
    made = {name: load_recipe(new / "stages" / name / "recipe.yaml") for name in recipes}
    set_field(recipes["second"], "optim.lr", "0.001")
    assert {name: recipe_to_yaml(recipe) for name, recipe in made.items()} == {
        name: recipe_to_yaml(recipe) for name, recipe in recipes.items()
    }
    again = json.loads((new / "stages" / "export" / "tool.json").read_text())
    assert json.dumps(again) == json.dumps(export).replace(old.name, new.name)
    spec = json.loads((old / "pipeline.json").read_text())
    assert json.loads((new / "pipeline.json").read_text()) == {**spec, "name": "again"}

    capfd.readouterr()
    for words, told in (
        (["thrid.optim.lr=1"], "thrid.optim.lr: again has no stage thrid"),
        (
            ["first=1"],
            "first: a pipeline that is run again takes STAGE.FIELD and fields of all recipes, no parameters: ",
        ),
        (["first.optim.lx=1"], "first: optim.lx: no such field"),
        (["executor=slurm"], "executor=slurm: a pipeline is run again where it ran"),
        (["--sweep"], "--sweep: "),
    ):
        assert main(["rerun", "again", *words, *place]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"error: {told}")


def test_a_sweep_is_run_again_with_its_points(runs_dir, tmp_path, monkeypatch, starts, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(recipe_to_yaml(make_recipe()))
    place = ["--runs-dir", str(runs_dir)]
    assert main(["one.yaml", "optim.lr=1e-5,2e-5", "--sweep", "--parallel", "2", "--name", "rates", *place]) == 0
    assert main(["rerun", "rates", "trainer.seed=9", "--name", "more", *place]) == 0
    run = find_run("more", runs_dir)
    spec = json.loads((run.path / "pipeline.json").read_text())
    assert spec["parallel"] == 2
    assert [stage["settings"] for stage in spec["stages"]] == [{"optim.lr": "1e-5"}, {"optim.lr": "2e-5"}]
    points = [load_recipe(run.path / "stages" / name / "recipe.yaml") for name in ("1", "2")]
    assert [(recipe.optim.lr, recipe.trainer.seed) for recipe in points] == [(1e-5, 9), (2e-5, 9)]
    assert sorted(starts()) == ["1", "1", "2", "2"]


SPACED = """
    from executors import Evaluate, Pipeline, Stage
    from neva_recipes import gpt
    from neva_recipes.config import config

    def spaced() -> Pipeline:
        first = Stage("pre train", gpt.pretrain("tiny"))
        return Pipeline("spaced", first >> Stage("it's asked", config(Evaluate, model=first.output)))
"""


def test_what_is_to_be_typed_can_be_typed_whatever_a_stage_is_called(tmp_path, capsys):
    (tmp_path / "lab.py").write_text(textwrap.dedent(SPACED))
    (tmp_path / "a.txt").write_text("Some text.\n")
    words = ["spaced", "--recipes", str(tmp_path / "lab.py"), "--dry-run"]
    assert main(words) == 2
    ways = [way for line in capsys.readouterr().err.splitlines() for way in re.findall(r"; add (.*)", line)]
    assert sorted(ways) == [
        "'it'\"'\"'s asked.data'=FILE",
        "'pre train.data.data_path'=FILE",
        "'pre train.data.tokenizer'=PATH",
    ]
    typed = [shlex.split(way)[0].replace("=FILE", f"={tmp_path}/a.txt") for way in ways]
    main([*words, *typed])
    assert "; add " not in capsys.readouterr().err
