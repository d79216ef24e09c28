"""Runs whose checkpoints have no room on the disk are refused where not one has, else warned of."""

import dataclasses
import json
import shutil
from collections import namedtuple

import pytest

import executors
from neva_recipes import gpt
from neva_recipes.cli.main import main
from neva_recipes.config import RunError, build, set_field
from neva_recipes.plan import layout_of, plan
from neva_recipes.plan.disk import disk_space

MIB = 2**20


@pytest.fixture
def recipe(tmp_path):
    made = gpt.pretrain("tiny")
    (tmp_path / "text.txt").write_text("A day that is like any other.\n" * 2000)
    made.data.data_path = str(tmp_path / "text.txt")
    return made


@pytest.fixture
def free(monkeypatch):
    """Return a function that says how many bytes are free."""
    usage = namedtuple("usage", "total used free")

    def set_free(count):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(count, 0, count))

    return set_free


KEPT = [
    ({}, 1),
    ({"checkpoint.save_top_k": "3"}, 1),  # of 100 steps, the last one is written alone
    ({"checkpoint.every_n_train_steps": "10"}, 1),
    ({"checkpoint.every_n_train_steps": "10", "checkpoint.save_top_k": "3"}, 3),
    ({"checkpoint.every_n_train_steps": "30", "checkpoint.save_top_k": "-1"}, 4),
    ({"checkpoint.every_n_train_steps": "10", "checkpoint.save_top_k": "0"}, 1),
    ({"checkpoint.every_n_train_steps": "10", "checkpoint.monitor": "reduced_train_loss"}, 2),
    ({"checkpoint.every_n_train_steps": "10", "data.validation_data_path": "v.txt"}, 2),
    ({"checkpoint.every_n_train_steps": "none", "checkpoint.save_top_k": "0", "checkpoint.save_last": "false"}, 0),
    ({"checkpoint.train_time_interval_minutes": "5", "checkpoint.save_top_k": "-1"}, None),
    ({"checkpoint.train_time_interval_minutes": "5", "checkpoint.save_top_k": "2"}, 2),
]


@pytest.mark.parametrize(("fields", "kept"), KEPT, ids=[",".join(fields) or "default" for fields, _ in KEPT])
def test_how_many_checkpoints_are_kept(recipe, fields, kept):
    for path, value in fields.items():
        set_field(recipe, path, value)
    built = build(recipe)
    space = disk_space(built, layout_of(built), steps=100)
    assert space.kept == kept
    assert space.total == (None if kept is None else (kept + 1) * space.checkpoint if kept else 0)


def test_a_launch_needs_room_for_one_checkpoint(recipe, free, tmp_path, monkeypatch):
    size = plan(recipe).disk.checkpoint
    runs = tmp_path / "deep" / "runs"
    monkeypatch.setattr("executors.launch.start", lambda *_, **__: None)
    job = executors.plan_job(recipe, runs_dir=runs)
    free(size - 1)
    with pytest.raises(RunError) as raised:
        executors.start_job(job)
    text = f"{size / MIB:.1f} MiB"
    assert str(raised.value).startswith(f"{runs}: {text} of its disk are free, and a checkpoint takes {text}; ")
    assert "--runs-dir DIR" in str(raised.value) and not runs.exists()


def test_a_dry_run_does_not_measure_a_disk_that_is_not_here(recipe, free, tmp_path, capsys):
    free(1)
    words = ["gpt.pretrain", "size=tiny", f"data.data_path={recipe.data.data_path}", "--dry-run", "--runs-dir"]
    for folder, is_told in ((tmp_path / "new", True), ("/no-such-disk/projects/runs", False)):
        main([*words, str(folder)])
        assert ("of its disk are free" in "".join(capsys.readouterr())) == is_told


def test_a_launch_warns_of_what_will_have_no_room(recipe, free, tmp_path, monkeypatch, capsys):
    recipe.checkpoint.every_n_train_steps, recipe.checkpoint.save_top_k = 10, 3
    size = plan(recipe).disk.checkpoint
    monkeypatch.setattr("executors.launch.start", lambda *_, **__: None)
    for count, quiet, warns in ((4 * size, False, False), (4 * size - 1, True, False), (4 * size - 1, False, True)):
        free(count)
        executors.start_job(executors.plan_job(recipe, runs_dir=tmp_path / "runs"), quiet=quiet)
        err = capsys.readouterr().err
        assert ("3 checkpoints with one that is being written take" in err) == warns, err


def test_what_lies_there_counts_for_a_resume(recipe, free, tmp_path):
    recipe.checkpoint.every_n_train_steps, recipe.checkpoint.save_top_k = 10, 3
    planned = plan(recipe)
    for there, count, severity in ((0, 3, "warning"), (1, 3, None), (3, 1, None), (3, 0.9, "error")):
        free(int(count * planned.disk.checkpoint))
        found = executors.disk_finding([planned], tmp_path, there=there, is_new=False)
        assert (found and found.severity) == severity
        assert found is None or "--runs-dir" not in found.line()


def test_a_resume_that_keeps_all_checkpoints_replaces_none(recipe, free, tmp_path):
    recipe.checkpoint.every_n_train_steps, recipe.checkpoint.save_top_k = 10, -1
    planned = plan(recipe)
    # How many there will be is not known.
    planned = dataclasses.replace(planned, disk=dataclasses.replace(planned.disk, kept=None))
    for count, severity in ((2, None), (1.9, "warning"), (0.9, "error")):
        free(int(count * planned.disk.checkpoint))
        found = executors.disk_finding([planned], tmp_path, there=3, is_new=False)
        assert (found and found.severity) == severity


def test_points_of_a_sweep_are_added_up(recipe, free, tmp_path):
    planned = plan(recipe)
    free(4 * planned.disk.checkpoint - 1)
    assert executors.disk_finding([planned] * 2, tmp_path) is None
    found = executors.disk_finding([planned] * 3, tmp_path)
    assert found.severity == "warning" and "3 checkpoints of 3 runs with one" in found.message


def test_a_dry_run_tells(recipe, free, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["gpt.pretrain", "size=tiny", "data.data_path=text.txt", "--dry-run"]
    free(MIB)
    main([*words, "--format", "json"])
    document = json.loads(capsys.readouterr().out)["plan"]
    (finding,) = [finding for finding in document["findings"] if finding["code"] == "disk-full"]
    assert f"{tmp_path / 'runs'}: 1.0 MiB of its disk are free" in finding["line"]
    size = document["disk"]["checkpoint"]
    assert document["disk"] == {"checkpoint": size, "kept": 1, "total": 2 * size}
