"""Runs in a place that is asked how they stand, as a cluster is: its files are written by the tests."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import executor_jobs
import place_jobs
import pytest

import executors
from executors import Run
from neva_recipes.config import RunError
from neva_recipes.run_directory.lock import acquire_lock
from neva_recipes.run_directory.state import State, read_state, write_state


@pytest.fixture
def queued(place, runs_dir):
    return executors.start_job(place_jobs.make_job(place, runs_dir), detach=True)


def test_queued_run_shows_what_it_waits_for(place, queued):
    assert (queued.status().state, queued.status().exit_code, queued.status().reason) == ("queued", None, None)
    place.tell("queued", reason="waits for Resources")
    assert Run(queued.path).status().reason == "waits for Resources"
    assert read_state(queued.path).reason is None, "what passes is written nowhere"
    assert not queued.has_ended()
    with pytest.raises(RunError, match="in use: queued"):
        queued.resume()


@pytest.mark.parametrize(("force", "reason"), [(False, "cancelled"), (True, "killed")])
def test_queued_run_can_be_cancelled(place, queued, force, reason):
    queued.cancel(force)
    status = queued.status()
    assert (status.state, status.exit_code, status.reason) == ("cancelled", 130, reason)
    with pytest.raises(RunError, match="has already ended: cancelled"):
        queued.cancel()


def test_final_outcome_is_asked_for_once(place, queued):
    place.set_alive(False)
    place.tell("failed", exit_code=137, reason="node n7 went down", ended="2025-01-01T00:00:00+00:00")
    for _ in range(2):
        status = Run(queued.path).status()
        assert (status.state, status.exit_code, status.reason) == ("failed", 137, "node n7 went down")
        assert status.ended.timestamp() == 1735689600
    asked = place.times_asked()
    place.tell("succeeded")
    assert Run(queued.path).status().state == "failed" and place.times_asked() == asked
    queued.resume(detach=True)
    assert queued.status().attempt == 2


def test_outcome_is_shown_but_not_written_beside_a_starter(place, queued):
    """Whoever holds the lock is about to write a state of its own."""
    place.set_alive(False)
    place.tell("failed", reason="node n7 went down")
    lock = acquire_lock(queued.path)
    assert Run(queued.path).status().state == "failed"
    assert read_state(queued.path).state == "queued"
    os.close(lock)
    assert Run(queued.path).status().state == "failed"
    assert read_state(queued.path).state == "failed"


def test_start_on_another_machine_that_was_killed(place, queued):
    """The lock, which goes with whoever starts a run, tells of a process that nobody here can see."""
    starter = {"pid": 4711, "pid_start": 1, "boot_id": "another", "hostname": "login2"}
    write_state(queued.path, State(state="created", supervisor=starter))
    lock = acquire_lock(queued.path)
    assert queued.status().state == "created"
    os.close(lock)
    assert queued.status().state == "lost"
    with pytest.raises(RunError, match="has already ended: lost"):
        queued.cancel()
    queued.resume(detach=True)
    assert queued.status().state == "queued"


def test_place_that_knows_nothing(place, queued):
    place.set_alive(None)
    assert queued.status().state == "queued"
    place.set_alive(False)
    assert (queued.status().state, queued.status().exit_code) == ("lost", 1)
    assert read_state(queued.path).state == "queued"
    queued.resume(detach=True)
    assert queued.status().attempt == 2


def test_end_that_is_written_counts_more_than_what_the_place_says(place, queued):
    write_state(queued.path, dataclasses.replace(read_state(queued.path), state="succeeded", exit_code=0))
    place.set_alive(False)
    place.tell("failed", reason="the accounting is late")
    assert Run(queued.path).status().state == "succeeded"


@pytest.mark.multiprocess
@pytest.mark.parametrize("end", ["succeeds", "interrupted", "killed"])
def test_foreground_of_a_run_elsewhere(place, runs_dir, tmp_path, end):
    code = (
        "import sys, place_jobs, executors\n"
        "from neva_recipes.config import UserError\n"
        "executor = executors.find_executor('place', {'folder': sys.argv[1]})\n"
        "executors.run(place_jobs.executor_jobs.make_recipe(), executor, runs_dir=sys.argv[2])\n"
    )
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parent)])
    place.tell("queued", reason="waits for Priority")
    command = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "place"), str(runs_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    with command:
        assert command.stderr.readline().endswith(" is queued: waits for Priority\n")
        (run,) = executors.list_runs(runs_dir)
        if end == "succeeds":
            place.tell("queued")
            asked = place.times_asked()
            while place.times_asked() < asked + 3:
                time.sleep(0.05)
            place.tell("queued", reason="waits for Resources")
            assert command.stderr.readline().endswith(" is queued: waits for Resources\n")
            with (run.path / "logs" / "joined.log").open("a") as log:
                log.write("a line\n")
            assert command.stdout.readline() == "a line\n"
            place.tell("succeeded")
            place.set_alive(False)
            assert command.wait(executor_jobs.PATIENCE) == 0
            assert run.status().state == "succeeded"
        elif end == "interrupted":
            command.send_signal(signal.SIGINT)
            command.wait(executor_jobs.PATIENCE)
            assert run.status().state == "cancelled"
        else:
            # The run is not this machine's: it outlives who started it.
            command.kill()
            command.wait()
            assert run.status().state == "queued"


@pytest.mark.multiprocess
def test_logs_of_a_queued_run_say_what_it_waits_for(place, queued):
    place.tell("queued", reason="waits for Priority")
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parent)])
    words = [Path(sys.executable).with_name("nemo-run"), "logs", "-f", queued.path]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as command:
        assert command.stderr.readline() == f"run {queued.name} is queued: waits for Priority\n"
        with (queued.path / "logs" / "joined.log").open("a") as log:
            log.write("a line\n")
        assert command.stdout.readline() == "a line\n"
        place.tell("succeeded")
        place.set_alive(False)
        assert command.wait(executor_jobs.PATIENCE) == 0


def test_what_an_executor_elsewhere_needs_is_public():
    assert executors.State is State
    assert (executors.read_state, executors.write_state) == (read_state, write_state)
    assert executors.run_directory_script.__module__ == "executors.script"
