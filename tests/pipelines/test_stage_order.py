"""A stage does not begin with what another has not finished, and is not done once its input has gone on."""

import json
import re
import textwrap

import pytest

from executors import find_run
from executors.pipelines.directory import stage_statuses
from executors.pipelines.order import require_inputs
from neva_recipes.cli.main import main
from neva_recipes.config import RunError, load_recipe
from neva_recipes.run_directory.names import list_checkpoints

# Stands where the worker stands: counts steps in checkpoints, goes on from its newest, and notes what it began with.
_WORKER = """
    import shutil, sys, yaml
    from pathlib import Path
    run = Path(sys.argv[-1])
    runs = run.parent.parent.parent
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    newest = lambda place: max((place / "checkpoints").glob("step-*"), default=None)
    own, source = newest(run), recipe["model"]["language"]["from_pretrained"]
    begins = newest(Path(source)) or Path(source) if own is None and source else None
    with (runs / "starts").open("a") as file:
        file.write(f"{run.name} {'-' if begins is None else begins.name}\\n")
    if (runs / f"fail {run.name}").exists():
        sys.exit(3)
    done = 0 if own is None else int(own.name[5:])
    stops = (runs / f"stop {run.name}").exists()
    step = done + 1 if stops else recipe["trainer"]["max_steps"]
    if step > done:
        checkpoint = run / "checkpoints" / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        shutil.copy(run / "recipe.yaml", checkpoint)
        (checkpoint / "checkpoint.json").write_text(f'{{"step": {step}, "consumed_samples": 1, "metrics": {{}}}}')
    from neva_recipes.run_directory.attempt import let_go
    let_go(run)
    sys.exit(75 if stops else 0)
"""
_TOOL = """
    import json, sys
    from pathlib import Path
    run = Path(sys.argv[-1])
    with (run.parent.parent.parent / "starts").open("a") as file:
        file.write(f"{run.name} -\\n")
    source, output = map(Path, json.loads((run / "tool.json").read_text())["arguments"])
    output.mkdir()  # as an export, which does not write over another one
    if (run.parent.parent.parent / f"fail {run.name}").exists():
        sys.exit(3)
    (output / "made of").write_text(max((source / "checkpoints").glob("step-*")).name)
"""
_PIPELINES = """
    from executors import Export, Pipeline, Stage
    from neva_recipes.config import config
    from tests.pipelines.recipes import make_recipe

    def chain() -> Pipeline:
        first = Stage("first", make_recipe("one", max_steps=5))
        recipe = make_recipe("two", max_steps=3)
        recipe.model.language.from_pretrained = first.output
        second = Stage("second", recipe)
        aside = Stage("aside", make_recipe("three", max_steps=2))
        export = Stage("export", config(Export, model=second.output))
        return Pipeline("chain", first >> second >> export, first >> aside)
"""


@pytest.fixture
def nemo_run(runs_dir, tmp_path, monkeypatch, capfd):
    """Run a command in the folder of the runs, and return its exit code and what it has printed."""
    instead = tmp_path / "instead" / "neva_model"
    (instead / "worker.py").write_text(textwrap.dedent(_WORKER))
    (instead / "tool.py").write_text(textwrap.dedent(_TOOL))
    (tmp_path / "lab.py").write_text(textwrap.dedent(_PIPELINES))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main([*words, *(["--recipes", "lab.py", "--name", "p"] if words[0] == "chain" else [])])
        return code, " ".join("".join(capfd.readouterr()).split())

    return call


@pytest.fixture
def starts(runs_dir):
    """Return what was started since the last call: stages, with the checkpoint that each has begun with."""

    def read():
        lines = (runs_dir / "starts").read_text().splitlines() if (runs_dir / "starts").exists() else []
        (runs_dir / "starts").write_text("")
        return lines

    return read


def stages_of(run):
    return {stage.name: (stage.state, stage.older_than) for stage in stage_statuses(run.path)}


def commands_in(text):
    """Return the commands that a message names, as words."""
    return [found.split() for found in re.findall(r"nemo-run (resume [^,;]+?)(?:[,;]| *$| then)", text)]


def test_the_advice_for_a_change_finishes_the_earlier_stage_first(nemo_run, runs_dir, starts):
    (runs_dir / "stop first").touch()
    assert nemo_run("chain")[0] == 75
    (runs_dir / "stop first").unlink()
    run = find_run("p", runs_dir)
    code, told = nemo_run("resume", "p", "second.trainer.max_steps=4")
    assert code == 2 and starts() == ["first -"]
    advised = commands_in(told)
    assert advised == [
        ["resume", f"{run.name}/first"],
        ["resume", f"{run.name}/second", "trainer.max_steps=4"],
        ["resume", run.name],
    ]
    # Out of their order the second is refused, and names the first.
    for look in ([], ["--dry-run"]):
        code, told = nemo_run(*advised[1], *look)
        assert code == 2 and starts() == []
        assert "second begins with first, which is not done: cancelled" in told
        assert commands_in(told)[0] == advised[0]
    for words in advised:
        assert nemo_run(*words)[0] == 0
    assert starts() == ["first -", "second step-00000005", "aside -", "export -"]
    assert set(stages_of(run).values()) == {("succeeded", None)}


def test_who_means_an_unfinished_stage_names_its_checkpoint(nemo_run, runs_dir, starts):
    (runs_dir / "stop first").touch()
    assert nemo_run("chain")[0] == 75
    (runs_dir / "stop first").unlink()
    run = find_run("p", runs_dir)
    checkpoint = run.path / "stages" / "first" / "checkpoints" / "step-00000001"
    code, told = nemo_run("resume", "p/second")
    assert code == 2 and str(checkpoint) in told
    with pytest.raises(RunError, match="second begins with first, which is not done: cancelled at step 1"):
        find_run("p/second", runs_dir).resume()
    # No plan of this model takes a checkpoint without weights, so the check is asked by itself.
    recipe = load_recipe(run.path / "stages" / "second" / "recipe.yaml")
    second = find_run("p/second", runs_dir)
    with pytest.raises(RunError, match="second begins with first"):
        require_inputs(second.path, recipe)
    recipe.model.language.from_pretrained = str(checkpoint)
    require_inputs(second.path, recipe)


@pytest.mark.parametrize("is_old", [False, True])
def test_what_a_tool_was_stopped_in_does_not_keep_it_from_beginning_again(nemo_run, runs_dir, is_old):
    (runs_dir / "fail export").touch()
    assert nemo_run("chain")[0] != 0
    (runs_dir / "fail export").unlink()
    export = find_run("p", runs_dir).path / "stages" / "export"
    if is_old:  # an earlier version kept no fields, and what it left there is removed by hand
        tool = json.loads((export / "tool.json").read_text())
        del tool["fields"]
        (export / "tool.json").write_text(json.dumps(tool))
        (export / "exported").rmdir()
    assert nemo_run("resume", "p")[0] == 0
    assert (export / "exported" / "made of").read_text() == "step-00000003"
    assert [path.name for path in export.glob("aside-*")] == ([] if is_old else ["aside-exported"])


def test_what_has_come_of_an_input_that_has_gone_on_is_run_again(nemo_run, runs_dir, starts):
    assert nemo_run("chain")[0] == 0
    assert starts() == ["first -", "second step-00000005", "aside -", "export -"]
    run = find_run("p", runs_dir)
    second = run.path / "stages" / "second"
    assert nemo_run("resume", "p")[0] == 0 and starts() == []
    assert nemo_run("resume", "p/first", "trainer.max_steps=9")[0] == 0
    assert starts() == ["first -"]
    ready = ("succeeded", None)
    assert stages_of(run) == {
        "first": ready,
        "second": ("succeeded", "first"),
        "export": ("succeeded", "second"),
        "aside": ready,  # it takes nothing of the first one
    }
    assert "second is older than first, whose output it takes: a resume begins it anew" in nemo_run("status", "p")[1]
    assert "a resume would go on with second, export" in nemo_run("resume", "p", "--dry-run")[1]
    # One that cannot be started again leaves all as it was, and the pipeline does not call itself done.
    (runs_dir / "fail second").touch()
    code, told = nemo_run("resume", "p")
    assert code != 0 and "second" in told and starts() == ["second step-00000009"]
    assert [path.name for path in list_checkpoints(second / "checkpoints")] == ["step-00000003"]
    assert stages_of(run)["second"] == ("succeeded", "first")
    (runs_dir / "fail second").unlink()
    assert nemo_run("resume", "p")[0] == 0
    assert starts() == ["second step-00000009", "export -"]
    assert set(stages_of(run).values()) == {ready}
    assert sorted(path.name for path in (second / "checkpoints").iterdir()) == [
        "aside-step-00000003",
        "step-00000003",
    ]
    made = {path.parent.name: path.read_text() for path in run.path.glob("stages/export/*/made of")}
    assert made == {"aside-exported": "step-00000003", "exported": "step-00000003"}
    assert json.loads((run.path / "state.json").read_text())["state"] == "succeeded"
    assert nemo_run("resume", "p")[0] == 0 and starts() == []


def test_what_was_cut_short_does_not_go_on_beside_another_input(nemo_run, runs_dir, starts):
    (runs_dir / "stop second").touch()
    assert nemo_run("chain")[0] == 75
    (runs_dir / "stop second").unlink()
    run = find_run("p", runs_dir)
    assert stages_of(run)["second"] == ("cancelled", None)
    assert nemo_run("resume", "p/first", "trainer.max_steps=9")[0] == 0
    assert stages_of(run)["second"] == ("cancelled", "first")
    assert starts() == ["first -", "second step-00000005", "aside -", "first -"]
    code, told = nemo_run("resume", "p/second")
    assert code == 2 and commands_in(told)[0][:2] == ["resume", run.name] and starts() == []
    with pytest.raises(RunError, match=f"has begun with first .*: nemo-run resume {run.name} begins it anew"):
        find_run("p/second", runs_dir).resume()
    assert starts() == []
    assert nemo_run("resume", "p/second", "--from", "step-1", "--dry-run")[0] == 0  # who means it says so
    assert nemo_run("resume", "p")[0] == 0
    assert starts() == ["second step-00000009", "export -"]
    assert set(stages_of(run).values()) == {("succeeded", None)}
