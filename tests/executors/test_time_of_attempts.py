"""The time of a run is that of all its attempts."""

import json
import os
from datetime import datetime, timedelta

import pytest

import executors
from neva_recipes.cli.main import main
from neva_recipes.run_directory.attempt import keep_before
from neva_recipes.run_directory.state import State, first_files, read_state, seconds_so_far, write_state

START = datetime.fromisoformat("2026-03-01T12:00:00+00:00")


def ended(seconds, **fields):
    moment = (START + timedelta(seconds=seconds)).isoformat()
    return State(**{"state": "succeeded", "exit_code": 0, "started": START.isoformat(), "ended": moment, **fields})


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "one"
    (path / "logs").mkdir(parents=True)
    record = {"name": "one", "created": START.isoformat(), "argv": [], "cwd": "/", "world_size": 1}
    (path / "job.json").write_text(json.dumps({**record, "executor": {"kind": "local"}}))
    return path


def test_status_adds_up_attempts(path, capsys):
    write_state(path, ended(4, attempt=2, earlier_seconds=49))
    assert executors.Run(path).status().duration() == timedelta(seconds=53)
    assert main(["status", "one"]) == 0 and main(["status"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "0:00:53" in next(line for line in printed if line.startswith("time: ")) and printed[-2].endswith(
        "  0:00:53"
    )


def test_what_counts_of_the_last_attempt(path):
    assert seconds_so_far(path, State(state="created", earlier_seconds=7)) == 7
    assert seconds_so_far(path, ended(4.5, earlier_seconds=7)) == 11.5
    assert seconds_so_far(path, ended(-60, earlier_seconds=7)) == 7  # the clock was set back
    # Nobody has seen its end: it counts up to its last metrics, or its last line.
    lost = State(state="running", started=START.isoformat(), earlier_seconds=7)
    assert seconds_so_far(path, lost) == 7
    # The metrics may be those of the attempt before.
    for name, seconds, expected in (
        ("metrics/metrics.csv", -5, 0),
        ("logs/joined.log", 30, 30),
        ("metrics/metrics.csv", 20, 30),
        ("metrics/metrics.csv", 40, 40),
    ):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).touch()
        os.utime(path / name, times=(0, START.timestamp() + seconds))
        assert seconds_so_far(path, lost) == 7 + expected


def test_a_run_whose_supervisor_was_killed_counts_up_to_its_last_sign_of_life(path, capsys):
    gone = {"pid": 1, "pid_start": 1, "boot_id": "gone", "hostname": os.uname().nodename}
    write_state(path, State(state="running", started=START.isoformat(), earlier_seconds=7, supervisor=gone))
    (path / "metrics").mkdir()
    for name, seconds in (("logs/joined.log", 50), ("metrics/step.txt", 54)):
        (path / name).touch()
        os.utime(path / name, times=(0, START.timestamp() + seconds))
    status = executors.Run(path).status()
    assert (status.state, status.ended, status.duration()) == ("lost", None, timedelta(seconds=61))
    assert main(["status", "one"]) == 0
    assert "\ntime:      0:01:01\n" in capsys.readouterr().out


def test_a_record_of_an_older_version_and_a_wrong_one(path):
    old = json.loads(first_files(ended(4))["state.json"])
    del old["earlier_seconds"]
    (path / "state.json").write_text(json.dumps(old))
    assert executors.Run(path).status().duration() == timedelta(seconds=4)
    for wrong in ("4", -1, 1e300, None):
        (path / "state.json").write_text(json.dumps({**old, "earlier_seconds": wrong}))
        status = executors.Run(path).status()
        assert (status.state, status.reason) == (
            "lost",
            "state.json cannot be read: not the state of a run: earlier_seconds",
        )


def test_an_attempt_that_has_not_trained_leaves_the_time(path):
    write_state(path, ended(40, earlier_seconds=13))
    keep_before(path)
    write_state(path, ended(2, state="failed", exit_code=2, attempt=2, reason="x", earlier_seconds=53))
    assert (read_state(path).state, executors.Run(path).status().duration()) == ("succeeded", timedelta(seconds=53))
