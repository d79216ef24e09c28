"""How a run in the foreground ends for Python code: what an interrupt, a failure and a success do to the next line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import place_jobs
import pytest
from executor_jobs import PATIENCE, make_job
from test_local_kills import BUSY

import executors
from neva_recipes.config import RunError

_LOOP = """
import sys
sys.path[:0] = sys.argv[1:3]
from executor_jobs import make_job
import executors
for name in ("first", "second"):
    executors.start_job(make_job(sys.argv[3], sys.argv[4], name=name))
    print("after", name, flush=True)
"""


def _python(code, *words):
    here = Path(__file__).parent
    command = [sys.executable, "-c", code, str(here), str(here.parent.parent), *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def test_an_interrupt_ends_a_loop_over_runs_once_the_run_has_ended(script, runs_dir, processes):
    with _python(_LOOP, script(BUSY), runs_dir) as program:
        assert program.stdout.readline() == "up\n"
        os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=PATIENCE)
    (run,) = executors.list_runs(runs_dir)
    assert run.status().state == "cancelled"
    # The shell that runs a script stops its own loop only if the script has died of the signal.
    assert program.returncode == -signal.SIGINT and "after" not in out
    assert err.splitlines()[-1].startswith(f"KeyboardInterrupt: run {run.name} cancelled")
    processes.wait_until_gone()


def test_a_run_that_has_not_succeeded_is_an_error_if_asked_for(script, runs_dir, capfd):
    job = make_job(script("sys.exit(3)"), runs_dir)
    run = executors.start_job(job)
    reason = run.status().reason
    assert capfd.readouterr().err.splitlines()[-1] == f"error: run {run.name} failed: {reason}"
    with pytest.raises(RunError, match=f"^run {run.name} failed: {reason}$"):
        run.resume(check=True)
    assert repr(run) == f"Run('{run.path}', failed)"
    with pytest.raises(RunError, match=r"^run tiny-.* failed: "):
        executors.start_job(job, check=True, quiet=True)
    assert capfd.readouterr().err == ""


def test_a_run_that_has_succeeded_is_told_unless_quiet(script, runs_dir, capfd):
    job = make_job(script("pass"), runs_dir)
    run = executors.start_job(job, check=True)
    assert capfd.readouterr().err == f"{run.name} succeeded: {run.path}\n"
    assert repr(run) == f"Run('{run.path}', succeeded)"
    executors.start_job(job, check=True, quiet=True)
    assert capfd.readouterr().err == ""


def test_a_run_on_a_cluster_is_shown_without_a_question_to_it(place, runs_dir, monkeypatch):
    run = executors.start_job(place_jobs.make_job(place, runs_dir), detach=True)
    monkeypatch.setattr(type(run.executor()), "answer_seconds", 5.0)
    asked = place.times_asked()
    assert repr(run) == f"Run('{run.path}')"
    assert repr(executors.Run(runs_dir / "none")) == f"Run('{runs_dir}/none')"
    assert place.times_asked() == asked


def test_a_detached_run_cannot_be_checked(script, runs_dir):
    job = make_job(script("pass"), runs_dir)
    with pytest.raises(RunError, match=r"^check: with detach"):
        executors.start_job(job, detach=True, check=True)
    assert not runs_dir.exists()
