"""What the commands on runs say of a pipeline, and of a stage that trains nothing."""

import json

import pytest

import executors
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import UserError, config, set_field
from tests.pipelines.recipes import make_recipe


@pytest.fixture
def failed(runs_dir, four):
    """A pipeline whose last stage, an export, has failed."""
    (runs_dir / "fail d").touch()
    run = executors.run_pipeline(four, executors.LocalExecutor(), runs_dir, detach=True)
    assert run.wait() == 3
    return run


def test_show_and_the_ways_on(failed, runs_dir, capsys):
    """Every way that a message names is one that can be gone."""
    where = ["--runs-dir", str(runs_dir)]
    assert main(["show", failed.name, *where]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["Run", "Started as", "Stages"]
    assert [line.split()[:2] for line in blocks[2].splitlines()[2:6]] == [
        *(["a", "succeeded"], ["b", "succeeded"], ["c", "succeeded"], ["d", "failed"])
    ]
    assert main(["show", f"{failed.name}/d", *where]) == 0
    assert "  state:      failed" in capsys.readouterr().out
    assert main(["show", failed.name, "--format", "json", *where]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["recipe"], document["resumes"]) == ("failed", None, [])

    stages = failed.path / "stages"
    command = f"with other arguments it is a command of its own: nemo-run export {stages}/b {stages}/d/exported\n"
    assert main(["rerun", f"{failed.name}/d", "model=x", *where]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.endswith(command)
    for words, changes in (([], ""), (["model=a b"], " 'd.model=a b'")):
        assert main(["resume", f"{failed.name}/d", *words, *where]) == 2
        told = f"error: {failed.name}/d trains no recipe, and goes on with its pipeline: nemo-run resume"
        assert capsys.readouterr() == ("", f"{told} {failed.path}{changes}\n")
    assert main(["resume", failed.name, "b.optim.lr=1", *where]) == 2
    assert f"change a stage by itself, nemo-run resume {failed.path}/b optim.lr=1, then" in capsys.readouterr().err


def test_the_fields_of_what_is_not_done_are_changed_by_a_resume(failed, runs_dir, starts, capfd):
    where = ["--runs-dir", str(runs_dir)]
    saved = failed.path / "stages" / "d" / "tool.json"
    before = saved.read_text()
    for word, message in (
        ("d.model=gone", "d: model=gone: no such file or folder"),
        ("d.modle=x", "d: modle: no such field"),
    ):
        assert main(["resume", failed.name, word, *where]) == 2
        assert capfd.readouterr().err.startswith(f"error: {message}")
    assert saved.read_text() == before and starts() == ["a", "b", "c", "d"]
    other = failed.path / "stages" / "c"
    assert main(["resume", failed.name, f"d.model={other}", *where]) == 3  # it is told to fail
    assert json.loads(saved.read_text())["arguments"] == [str(other), str(failed.path / "stages" / "d" / "exported")]
    (runs_dir / "fail d").unlink()
    assert main(["resume", failed.name, *where]) == 0
    assert json.loads(saved.read_text())["fields"] == {"model": str(other)}
    assert starts() == ["a", "b", "c", "d", "d", "d"]
    capfd.readouterr()
    assert main(["resume", failed.name, f"d.model={other}", *where]) == 2
    assert f"d.model={other}: d has succeeded and is not run again" in capfd.readouterr().err
    assert main(["resume", f"{failed.name}/d", f"model={other}", *where]) == 2
    assert f"a command of its own: nemo-run export {other} " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("tool", "fields", "message"),
    [
        (executors.Export, {"model": "runs/gone"}, "use: model=runs/gone: no such file or folder"),
        (executors.Evaluate, {"conv_template": "v2"}, "use: conv_template='v2': expected one of "),
    ],
)
def test_what_would_be_missed_after_the_training(runs_dir, tmp_path, tool, fields, message):
    data = tmp_path / "held_out.json"
    data.write_text("[]")
    first = executors.Stage("first", make_recipe("first"))
    given = {"model": first.output, **({"data": str(data)} if tool is executors.Evaluate else {}), **fields}
    last = executors.Stage("use", config(tool, **given))
    with pytest.raises(UserError) as caught:
        executors.run_pipeline(executors.Pipeline("p", first >> last), None, runs_dir)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert not [*runs_dir.iterdir()]


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (
            ["model.projector.mm_projector_type=mlp3x_gelu"],
            "model.projector.mm_projector_type=mlp3x_gelu: transformers' LLaVA has two layers, so only linear and "
            "mlp2x_gelu can be exported",
            "model.projector.mm_projector_type=linear",
        ),
    ],
)
def test_an_export_that_cannot_be_written_is_told_before_the_training(tmp_path, words, problem, remedy):
    def told(*words):
        pipeline = llava.pipeline("tiny")
        for stage in pipeline.stages[:2]:
            for word in words:
                set_field(stage.work, *word.split("="))
        planned = executors.plan_pipeline(pipeline, runs_dir=tmp_path)
        return [line for line in planned.problems if line.startswith("export: ")]

    assert told(*words) == [f"export: {problem}"]
    assert told(*words, remedy) == told() == []
