"""The commands: a pipeline of one's own from a file, looked at, run, shown, continued; wrong overrides."""

import textwrap

import pytest

from neva_recipes.cli.main import main
from neva_recipes.config import load_recipe

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
    words = ["steps=7", "first.optim.lr=0.5", "optim.lr=0.25", "trainer.seed=3"]
    assert main(["mine", *words, *mine, "--runs-dir", str(runs_dir)]) == 0
    (directory,) = [path for path in runs_dir.iterdir() if path.is_dir()]
    recipes = [load_recipe(directory / "stages" / name / "recipe.yaml") for name in ("first", "second")]
    assert [(r.optim.lr, r.trainer.seed, r.trainer.max_steps) for r in recipes] == [(0.5, 3, 7), (0.25, 3, 1)]
    captured = capfd.readouterr()
    assert "--- export succeeded" in captured.out
    assert captured.err == f"{directory.name} succeeded: {directory}\n"
    assert main(["status", "mine", "--runs-dir", str(runs_dir)]) == 0
    table = capfd.readouterr().out.partition("STAGE ")[2].splitlines()[1:]
    assert [row.split()[:2] for row in table] == [[name, "succeeded"] for name in ("first", "second", "export")]
    assert main(["logs", "mine/second", "--runs-dir", str(runs_dir)]) == 0
    assert capfd.readouterr().out == "second works\n"


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
    assert capsys.readouterr().out.splitlines() == [
        "mine: 3 stages",
        "",
        "first",
        "  trains one: 1 process, 5 steps",
        "",
        "second, after first",
        "  trains two: 1 process, 1 steps",
        "  optim.lr=0.5",
        "",
        "export, after second",
        "  runs export",
        "  model=first.output",
    ]
    assert list(runs_dir.iterdir()) == []


def test_pipelines_are_listed_and_explained(mine, capsys):
    assert main(["list", *mine]) == 0
    listed = capsys.readouterr().out
    assert "  lab.mine   Two stages of my own.\n" in listed
    assert "  llava.pipeline  " in listed
    assert main(["mine", "--help", *mine]) == 0
    shown = capsys.readouterr().out
    assert "How long the first one is." in shown
    assert "stage export, after second:" in shown


WRONG = {
    ("fist.optim.lr=1",): "fist.optim.lr: lab.mine has no stage fist (did you mean first?)",
    ("stps=1",): "stps: lab.mine has no parameter stps (did you mean steps?)",
    ("first.optim.lx=1",): "first: optim.lx: no such field",
    ("optim.lr=x",): "first: optim.lr='x': expected a number > 0",
    ("second.trainer.max_steps=0",): "second: trainer.max_steps='0': expected",
    ("export.modell=x",): "export: modell: no such field (did you mean model?)",
    ("second.data.data_path=gone.txt",): "second: data.data_path=gone.txt: no such file",
    ("first.trainer.num_nodes=2",): "first: trainer.num_nodes=2",
    ("--parallel", "0"): "argument --parallel: '0': expected a number of at least 1",
    ("--sweep",): "--sweep: goes with a recipe, not with a pipeline",
    ("--gpu", "h100-80g", "--dry-run"): "--gpu: goes with a recipe, not with a pipeline",
    ("--format", "json", "--dry-run"): "--format json: a pipeline is shown as text",
    ("--name", "a/b"): "name='a/b': a run's name cannot hold '/'",
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
    assert "error: evaluate: data is not set" in capsys.readouterr().err
