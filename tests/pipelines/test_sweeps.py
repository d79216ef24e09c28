"""Sweeps: what varies, what is refused, and the table at the end."""

import itertools
import time

import pytest

from executors import LocalExecutor, plan_pipeline, run_pipeline
from executors._pipeline_directory import stage_statuses, stage_table
from executors.sweep import grid, split_choices, sweep
from neva_recipes.cli.main import main
from neva_recipes.config import recipe_to_yaml, set_field
from tests.pipelines.recipes import make_recipe


def points(**choices):
    names = [name.replace("__", ".") for name in choices]
    found = []
    for values in itertools.product(*choices.values()):
        recipe = make_recipe()
        for name, value in zip(names, values, strict=True):
            set_field(recipe, name, value)
        found.append((dict(zip(names, values, strict=True)), recipe))
    return found


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1e-5,2e-5", ["1e-5", "2e-5"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("[1,2]", ["[1,2]"]),
        ("a,", ["a", ""]),
        ("", [""]),
    ],
)
def test_commas_part_values_but_not_inside_brackets(text, values):
    assert split_choices(text) == values


def test_the_grid_is_every_combination():
    made = grid({"a": ["1", "2", "3"], "b": ["x", "y"]})
    assert [tuple(point.values()) for point in made] == list(itertools.product("123", "xy"))


def test_a_failed_point_does_not_stop_the_others_and_resume_runs_it_alone(runs_dir, starts):
    (runs_dir / "fail 2").touch()
    pipeline = sweep("lr", points(optim__lr=["1e-5", "2e-5", "4e-5"]))
    run = run_pipeline(pipeline, LocalExecutor(), runs_dir, detach=True)
    assert run.wait() == 3
    assert starts() == ["1", "2", "3"]
    table = [line.split() for line in stage_table(stage_statuses(run.path))]
    assert table[0] == ["POINT", "optim.lr", "STATE", "STEP", "LOSS", "VAL", "LOSS", "TIME"]
    assert [row[:-1] for row in table[1:4]] == [
        ["1", "1e-5", "succeeded", "2", "1.25", "0.75"],
        ["2", "2e-5", "failed", "-", "-", "-"],
        ["3", "4e-5", "succeeded", "2", "1.25", "0.75"],
    ]
    (runs_dir / "fail 2").unlink()
    run.resume(detach=True)
    assert run.wait() == 0
    assert starts() == ["1", "2", "3", "2"]
    assert "lr: 4.0e-05" in (run.path / "stages" / "3" / "recipe.yaml").read_text()


def test_two_hundred_points_are_all_planned_and_written(runs_dir, tmp_path, record_testsuite_property):
    rates = [f"{number}e-6" for number in range(1, 201)]
    pipeline = sweep("lr", points(optim__lr=rates))
    started = time.perf_counter()
    planned = plan_pipeline(pipeline, LocalExecutor(), runs_dir=runs_dir)
    record_testsuite_property("planning seconds", time.perf_counter() - started)
    assert planned.problems == ()
    started = time.perf_counter()
    planned.write_stages(tmp_path / "written", tmp_path / "written")
    record_testsuite_property("writing seconds", time.perf_counter() - started)
    folders = sorted((tmp_path / "written" / "stages").iterdir())
    assert [folder.name for folder in folders] == [f"{number:03}" for number in range(1, 201)]
    for (_, recipe), folder in zip(points(optim__lr=rates), folders, strict=True):
        assert (folder / "recipe.yaml").read_text() == recipe_to_yaml(recipe)


WRONG = {
    ("optim.lr=1e-5",): "--sweep: no field has several values: write optim.lr=1e-5,2e-5",
    ("optim.lr=1e-5,x",): "point optim.lr=x: optim.lr='x': expected a number > 0",
    ("optim.lr=1e-5,",): "point optim.lr=: optim.lr='': expected a number > 0",
    ("optim.lr=1e-5,1e-5",): "optim.lr=1e-5,1e-5: has 1e-5 twice",
    ("optim.lx=1,2",): "point optim.lx=1: optim.lx: no such field",
    ("data.micro_batch_size=1,3", "data.global_batch_size=8", "optim.lr=1,2"): "3 (data.micro_batch_size=3, "
    "optim.lr=1): ",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_mistake_in_any_point_stops_all_in_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["gpt.pretrain", "size=tiny", *words, "--sweep"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {WRONG[words]}") or (len(words) > 1 and "(and " in line)
    assert not (tmp_path / "runs").exists()
