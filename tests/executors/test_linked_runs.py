"""A run directory that several entries of a folder lead to is one run, under any of their names."""

from datetime import timedelta

import pytest
from executor_jobs import make_recipe

import executors
from neva_recipes.cli.main import main
from neva_recipes.run_directory.state import State, write_state


def plant(path):
    """Write what there is of a run that ended long ago, with a data cache."""
    path.mkdir(parents=True)
    (path / "job.json").write_text(executors.plan_job(make_recipe(), name="demo").to_json())
    ended = "2025-01-01T01:00:00+00:00"
    write_state(path, State(state="succeeded", exit_code=0, started="2025-01-01T00:00:00+00:00", ended=ended))
    (path / "data_cache").mkdir()
    (path / "data_cache" / "tokens").write_bytes(b"x" * 4096)
    return path


def test_a_link_beside_a_run(runs_dir, tmp_path, monkeypatch, capsys):
    path = plant(runs_dir / "demo-1")
    (runs_dir / "a-link").symlink_to("demo-1")
    (runs_dir / "latest").symlink_to(path)
    assert [run.path for run in executors.list_runs(runs_dir)] == [path]
    for name in ("latest", "a-link", "demo-1", "demo"):
        assert executors.find_run(name, runs_dir).path == path
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 0
    assert "1 run: 1 succeeded" in capsys.readouterr().out
    (leftover,) = executors.find_leftovers(runs_dir, timedelta(0))
    assert leftover.path == path / "data_cache"
    assert list(executors.remove_leftovers([leftover])) == [(leftover, None)]
    assert executors.find_leftovers(runs_dir, timedelta(0)) == []


@pytest.mark.parametrize("links", [["one"], ["one", "two"]])
def test_links_to_a_run_of_another_folder(runs_dir, tmp_path, links):
    path = plant(tmp_path / "elsewhere" / "demo-1")
    runs_dir.mkdir()
    for name in links:
        (runs_dir / name).symlink_to(path)
    assert [run.path for run in executors.list_runs(runs_dir)] == [runs_dir / "one"]
    assert {executors.find_run(name, runs_dir).path for name in links} == {runs_dir / "one"}
    (leftover,) = executors.find_leftovers(runs_dir, timedelta(0))
    assert list(executors.remove_leftovers([leftover])) == [(leftover, None)]
    assert not (path / "data_cache").exists()


def test_a_link_to_a_stage_of_a_pipeline(runs_dir):
    stage = plant(plant(runs_dir / "pipeline-1") / "stages" / "train")
    (runs_dir / "train").symlink_to(stage)
    assert len(executors.list_runs(runs_dir)) == 2
    assert executors.find_run("train", runs_dir).path == runs_dir / "train"
    found = [leftover.path for leftover in executors.find_leftovers(runs_dir, timedelta(0))]
    assert found == [runs_dir / "pipeline-1" / "data_cache", stage / "data_cache"]
