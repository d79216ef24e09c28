"""One folder of runs under many writers that are killed at any moment, and under clocks and disks as they are."""

import dataclasses
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import executor_jobs
import place_jobs
import pytest

import executors
from executors import Run
from neva_recipes.cli.main import main
from neva_recipes.config import build, load_recipe
from neva_recipes.run_directory import lock
from neva_recipes.run_directory.removal import REMOVED
from neva_recipes.run_directory.state import STATES, State, read_state, write_state
from neva_recipes.storage.checkpoints import record_text

WRITERS = 4


def churn(arguments, look):
    """Keep some writers going, each killed at a random moment and replaced, and look at what they do meanwhile.

    Args:
        arguments: What the writers do.
        look: Checks what can be seen, and returns how much has been written.
    """
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(place_jobs.__file__).parent)])

    def start():
        command = [sys.executable, place_jobs.__file__, *arguments]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})

    writers, kills, seen = [start() for _ in range(WRITERS)], 0, 0
    end = time.monotonic() + 300
    chance = random.Random(7)
    try:
        while kills < 10:
            assert time.monotonic() < end
            written = look()
            # Not before there is something new: on a slow machine they must get as far as writing.
            if written >= seen + 3:
                time.sleep(chance.random() * 0.1)
                number = chance.randrange(WRITERS)
                assert writers[number].poll() is None, "a writer has failed"
                writers[number].send_signal(signal.SIGKILL)
                writers[number].wait()
                writers[number], kills, seen = start(), kills + 1, written
            time.sleep(0.02)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


@pytest.mark.multiprocess
def test_killed_launches_leave_whole_runs_and_what_the_next_one_takes(place, runs_dir):
    def look():
        runs = executors.list_runs(runs_dir)
        for run in runs[-20:]:
            assert run.status().state in ("created", "queued", "lost")
            assert run.record()["name"] == "tiny" and run.recipe_files()
        return len(runs)

    churn(["launch", str(place.folder), str(runs_dir)], look)
    runs = executors.list_runs(runs_dir)
    assert len(runs) > 2 * WRITERS
    for run in runs[::5]:
        build(load_recipe(run.path / "recipe.yaml"))
        assert run.saved_plan() is not None
        # Killed between its directory and its start, it is over; later, it goes on without its launcher.
        assert run.status().state == ("lost" if read_state(run.path).state == "created" else "queued")
    # None of the kills may have met a launch before it had a name.
    for number in (1, 2):
        cut_short = runs_dir / f".new-cut-short-{number}"
        cut_short.mkdir()
        (cut_short / ".lock").touch()
    # A writer that was killed while it swept what an earlier kill had left has left that half removed.
    hidden = {path for beginning in (".new-", REMOVED) for path in runs_dir.glob(f"{beginning}*")}
    without_lock = {path for path in hidden if not (path / ".lock").exists()}
    # A git that a launch had begun to start when it was killed holds its lock for a moment longer.
    end = time.monotonic() + 10
    while (found := {part.path for part in executors.find_leftovers(runs_dir)}) != hidden - without_lock:
        assert time.monotonic() < end, (found, hidden, without_lock)
        time.sleep(0.1)
    for path in without_lock:
        os.utime(path, (0, 0))
    leftovers = executors.find_leftovers(runs_dir)
    assert {leftover.path for leftover in leftovers} == hidden
    assert [reason for _, reason in executors.remove_leftovers(leftovers[:1])] == [None]
    runs.append(executors.start_job(place_jobs.make_job(place, runs_dir), detach=True))
    assert {path.name for path in runs_dir.iterdir()} == {run.name for run in runs}


@pytest.mark.multiprocess
def test_killed_resumes_of_one_run_leave_it_whole(place, runs_dir):
    place.set_alive(False)
    run = executors.start_job(place_jobs.make_job(place, runs_dir), detach=True)

    def look():
        status = Run(run.path).status()
        assert status.state in ("created", "lost") and "cannot be read" not in (status.reason or "")
        build(load_recipe(run.path / "recipe.yaml"))
        return status.attempt

    churn(["resume", str(run.path)], look)
    attempt = run.status().attempt
    assert attempt > 3
    # The last one may have been killed when it had kept the old recipe and not yet written its own.
    recipe = executor_jobs.make_recipe()
    recipe.optim.lr = 0.125
    run.resume(recipe, detach=True)
    rates = [build(load_recipe(path)).optim.lr for path in run.recipe_files()]
    assert len(set(rates)) == len(rates), "every recipe it has had is kept once"
    assert rates[-1] == 0.125 and run.status().attempt == attempt + 1
    assert not list(run.path.glob(".*.new")), "what killed writers left is gone"


def plant(folder, name, **values):
    """Write a run directory with some fields of its job and a state."""
    job = executors.plan_job(executor_jobs.make_recipe(), name="demo", runs_dir=folder)
    path = folder / name
    path.mkdir(parents=True)
    (path / "job.json").write_text(json.dumps({**json.loads(job.to_json()), **values}))
    return Run(path)


def test_half_written_directories_hide_nothing(runs_dir):
    whole = plant(runs_dir, "whole")
    write_state(whole.path, State(state="succeeded", exit_code=0))
    for name, text in {"cut": '{"name": "x', "list": "[]", "empty": "", "numbers": '{"name": 1}'}.items():
        (runs_dir / name).mkdir()
        (runs_dir / name / "job.json").write_text(text)
        write_state(runs_dir / name, State(state="running", supervisor={"pid": 1}))
    (runs_dir / "without-job").mkdir()
    (runs_dir / "a-file").write_text("")
    (runs_dir / "folder").mkdir()
    (runs_dir / "folder" / "job.json").mkdir()
    names = {run.name for run in executors.list_runs(runs_dir)}
    assert names == {"whole", "cut", "list", "empty", "numbers"}
    assert executors.find_run("demo", runs_dir).path == whole.path
    assert executors.find_leftovers(runs_dir, timedelta(0)) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"running"',
        '{"state": "paused"}',
        '{"state": null}',
        '{"state": "running", "attempt": "1"}',
        '{"state": "succeeded", "exit_code": "0"}',
        '{"state": "failed", "reason": ["x"]}',
        '{"state": "succeeded", "started": "yesterday"}',
        '{"state": "succeeded", "ended": 5}',
        '{"state": "running", "supervisor": "me"}',
        '{"state": "running", "colour": "red"}',
        '{"state": "running"',
    ],
)
def test_state_that_is_none_is_told(runs_dir, text):
    run = plant(runs_dir, "demo")
    (run.path / "state.json").write_text(text)
    status = run.status()
    assert status.state == "lost" and status.exit_code == 1
    assert status.reason.startswith("state.json cannot be read: ")


def test_order_is_that_of_time_whatever_the_zone(runs_dir):
    plant(runs_dir, "c", created="2025-06-01T10:00:00+00:00")
    plant(runs_dir, "a", created="2025-06-01T11:30:00+02:00")
    plant(runs_dir, "b", created="2025-06-01T04:45:00-05:00")
    assert [run.name for run in executors.list_runs(runs_dir)] == ["a", "b", "c"]


def test_clocks_that_jump(runs_dir):
    run = plant(runs_dir, "demo", created="2999-01-01T00:00:00+00:00")
    later = datetime.now(UTC) + timedelta(days=400)
    write_state(run.path, State(state="succeeded", exit_code=0, started=later.isoformat(), ended="2020-01-01T00:00:00"))
    assert run.status().state == "succeeded"
    plant(runs_dir, "normal")
    assert [run.name for run in executors.list_runs(runs_dir)] == ["normal", "demo"]


def test_every_state_is_read_back(tmp_path):
    for name in STATES:
        state = State(state=name, attempt=3, reason="tschüß", supervisor={"any": ["thing"]})
        write_state(tmp_path, state)
        assert read_state(tmp_path) == state


@pytest.fixture
def flock(monkeypatch):
    """Replace what the kernel answers to a request for a lock."""

    def replace(answer):
        monkeypatch.setattr(fcntl, "flock", answer)
        if answer is hang:
            monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.2)

    return replace


def refuse(*_):
    raise OSError(95, "Operation not supported")


def hang(*_):
    time.sleep(600)


@pytest.mark.parametrize(
    ("answer", "words"), [(refuse, "the file system has no locks (Operation not supported)"), (hang, "no answer")]
)
def test_file_system_without_locks(place, runs_dir, flock, capfd, answer, words):
    flock(answer)
    begun = time.monotonic()
    run = executors.start_job(place_jobs.make_job(place, runs_dir), detach=True)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: ") and words in line
    assert line.endswith("; do not start or resume a run there from two places at once")
    place.set_alive(False)
    place.tell("succeeded")
    # Without a lock nobody but the run itself writes its state.
    assert run.status().state == "succeeded" and read_state(run.path).state == "queued"
    run.resume(detach=True)
    assert run.status().attempt == 2
    assert time.monotonic() - begun < 600


def name_in_recipe(user, source):
    """Make one run start from a checkpoint of another."""
    recipe = user.path / "recipe.yaml"
    named = f"from_pretrained: {source.path / 'checkpoints' / 'step-00000010'}"
    recipe.write_text(recipe.read_text().replace("from_pretrained: null", named, 1))
    assert named in recipe.read_text()


def test_old_data_of_ended_runs_can_go(place, runs_dir):
    def ended(name, days, checkpoints, folder=runs_dir, losses=(), **state):
        run = executors.start_job(place_jobs.make_job(place, folder, name=name), detach=True)
        when = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        written = {"state": "succeeded", "exit_code": 0, "ended": when, **state}
        write_state(run.path, dataclasses.replace(read_state(run.path), **written))
        (run.path / "data_cache").mkdir()
        (run.path / "data_cache" / "tokens.npy").write_bytes(b"x" * 10000)
        for step in checkpoints:
            folder = run.path / "checkpoints" / f"step-{step:08d}"
            folder.mkdir(parents=True)
            (folder / "weights").write_bytes(b"x" * 5000)
            shutil.copy(run.path / "recipe.yaml", folder)
            record = {"step": step, "consumed_samples": step, "metrics": {}, "files": {"weights": 5000}}
            if losses:
                record |= {"metrics": {"val_loss": losses[step // 10 - 1]}, "validation": "done"}
            (folder / "checkpoint.json").write_text(json.dumps(record))
        return run

    old = ended("old", 40, [10, 20, 30])
    best = ended("best", 40, [10, 20, 30], losses=(0.3, 0.2, 0.4))
    ended("recent", 20, [10, 20])
    ended("running", 40, [10, 20], state="queued", exit_code=None, ended=None)
    ended("needed", 40, [10, 20])
    damaged = ended("damaged", 40, [10, 20, 30])
    (damaged.path / "checkpoints" / "step-00000030" / "weights").write_bytes(b"cut")
    name_in_recipe(executors.find_run("recent", runs_dir), executors.find_run("needed", runs_dir))
    program = executors.find_run("recent", runs_dir).path / "job.json"
    program.write_text(program.read_text().replace('"-m"', json.dumps(str(ended("measured", 40, [10, 20]).path))))
    # Nothing of a pipeline that has not ended, or that another run starts from, and nothing the next stage needs.
    unended = ended("unended", 40, [], state="queued", exit_code=None, ended=None)
    ended("one", 40, [10, 20], unended.path / "stages")
    pipeline = ended("pipeline", 40, [])
    one, two = (ended(name, 40, [10, 20], pipeline.path / "stages") for name in ("one", "two"))
    name_in_recipe(two, one)
    name_in_recipe(
        executors.find_run("running", runs_dir), ended("source", 40, [10, 20], ended("outer", 40, []).path / "stages")
    )

    assert executors.find_leftovers(runs_dir) == []
    found = executors.find_leftovers(runs_dir, timedelta(days=30))
    names = {str(leftover.path.relative_to(runs_dir)) for leftover in found}
    # The newest checkpoint of the damaged run cannot be used: the one before it stays too.
    assert names == {
        f"{old.name}/data_cache",
        f"{old.name}/checkpoints/step-00000010",
        f"{old.name}/checkpoints/step-00000020",
        f"{best.name}/data_cache",
        f"{best.name}/checkpoints/step-00000010",
        f"{damaged.name}/data_cache",
        f"{damaged.name}/checkpoints/step-00000010",
        f"{pipeline.name}/data_cache",
        f"{pipeline.name}/stages/{two.name}/data_cache",
        f"{pipeline.name}/stages/{two.name}/checkpoints/step-00000010",
    }
    assert all(leftover.size >= 5000 for leftover in found)

    longer = load_recipe(old.path / "recipe.yaml")
    longer.trainer.max_steps = 100
    old.resume(longer, detach=True)  # between the look and the removal
    removed = [leftover.run.name for leftover, reason in executors.remove_leftovers(found) if reason is None]
    assert sorted(removed) == sorted([best.name] * 2 + [damaged.name] * 2 + [pipeline.name] + [two.name] * 2)
    assert executors.find_leftovers(runs_dir, timedelta(days=30)) == []
    assert len(list(old.path.glob("checkpoints/step-*"))) == 3
    assert [path.name for path in sorted(damaged.path.glob("checkpoints/*"))] == ["step-00000020", "step-00000030"]

    # A removal that was killed: what it has renamed is no checkpoint any more, and goes the next time.
    (damaged.path / "checkpoints" / "step-00000020").rename(damaged.path / "checkpoints" / ".removed-step-00000020")
    (again,) = executors.find_leftovers(runs_dir)
    assert list(executors.remove_leftovers([again])) == [(again, None)] and not again.path.exists()


def test_a_checkpoint_stays_while_the_one_that_stands_in_for_it_is_damaged(place, runs_dir, capsys):
    """Damage that only the digests show: the cheap look at sizes takes the newest for whole."""
    run = executors.start_job(place_jobs.make_job(place, runs_dir, name="hurt"), detach=True)
    ended = {"state": "succeeded", "exit_code": 0, "ended": "2026-01-01T00:00:00+00:00"}
    write_state(run.path, dataclasses.replace(read_state(run.path), **ended))
    for name, text in (("step-00000010", b"good"), ("aside-step-00000020", b"good"), ("step-00000020", b"harm")):
        folder = run.path / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "__0_0.distcp").write_bytes(text)
        shutil.copy(run.path / "recipe.yaml", folder)
        record = {"step": 20, "consumed_samples": 20, "metrics": {}, "files": {"__0_0.distcp": 4}}
        record["digests"] = {"__0_0.distcp": f"crc32:{zlib.crc32(b'good'):08x}"}
        (folder / "checkpoint.json").write_text(record_text(record))
    names = sorted(path.name for path in run.path.glob("checkpoints/*"))
    words = ["gc", "--older-than", "1d", "--yes", "--runs-dir", str(runs_dir)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count("(kept: step-00000020 is damaged)") == 2 and "0 B freed" in shown
    assert sorted(path.name for path in run.path.glob("checkpoints/*")) == names
    (run.path / "checkpoints" / "step-00000020" / "__0_0.distcp").write_bytes(b"good")
    assert main(words) == 0
    assert [path.name for path in run.path.glob("checkpoints/*")] == ["step-00000020"]
