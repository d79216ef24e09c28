"""Jobs that stop before their end, and go on or not: a rank that saves nothing, and a job that may not be requeued."""

import json
import os
import signal
import subprocess

import pytest

from executors.slurm import end
from executors.slurm.run import note_end
from neva_recipes.run_directory.exit_codes import EXIT_STOPPED
from neva_recipes.run_directory.state import State, read_state, write_state
from tests.slurm.clusters import nothing_starts
from tests.slurm.holds import job_id
from tests.slurm.slurm_jobs import start
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

# Counts steps, saves them when it is asked to, and begins where it has saved.
COUNTING = """
def stop(*_):
    global stopping
    stopping = True
    (run_dir / f"asked-{restart}-{rank}").touch()
signal.signal(signal.SIGUSR2, stop)
stopping, folder = False, run_dir / "checkpoints"
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})  # a rank begins with it blocked
saved = sorted(folder.glob("step-*"))
step = int(saved[-1].name[5:]) if saved else 0
print(f"start {restart} at {step}", flush=True)
(run_dir / f"up-{restart}-{rank}").touch()
while step < 100_000 and not (run_dir / "finish").exists():
    step += 1
    time.sleep(0.1)
    if stopping:
        if rank == 0 and not SAVES_NOTHING:
            (folder / f"step-{step:08d}").mkdir(parents=True)
        print("stopped", flush=True)
        sys.exit(75)
"""


def have_told(run, what, restart, ranks):
    return all((run.path / f"{what}-{restart}-{rank}").exists() for rank in range(ranks))


def ask_to_stop(run, restart, ranks):
    """Ask the ranks of a start of the job to stop, once they run."""
    wait_for(lambda: have_told(run, "up", restart, ranks))

    def has_reached_them():
        # Slurm loses what it is to send to a step that is still being started.
        subprocess.run(["scancel", "--signal=USR2", job_id(run)], capture_output=True, check=False)
        return have_told(run, "asked", restart, ranks)

    wait_for(has_reached_them)


def test_goes_on_where_it_stopped_and_ends_without_progress(cluster, script, tmp_path):
    body = COUNTING.replace("SAVES_NOTHING", "restart == 1 or restart == 2")
    run = start(script(body), tmp_path, 2, 1)
    wait_for(lambda: have_told(run, "up", 0, 2))
    with nothing_starts():
        ask_to_stop(run, 0, 2)
        wait_for(lambda: run.status().state == "queued")
        (first,) = (run.path / "checkpoints").iterdir()
        wait_for(lambda: "waits: " in (run.status().reason or ""))
    wait_for(lambda: run.status().state == "running")
    # It saves nothing this time: what it had is still its newest checkpoint.
    ask_to_stop(run, 1, 2)
    assert run.wait() == 1
    status = run.status()
    assert (status.state, status.attempt) == ("failed", 1)
    assert f"no progress between two requeues: its newest checkpoint is still {first.name}" in status.reason
    assert f"[0] start 1 at {int(first.name[5:])}" in list(run.logs())
    requeues = json.loads((run.path / "slurm" / "requeues.json").read_text())
    assert [entry["checkpoint"] for entry in requeues] == [first.name, first.name]
    # Slurm has restarted it exactly once, and does so no more.
    shown = subprocess.run(["scontrol", "show", "job", job_id(run)], capture_output=True, text=True, check=True).stdout
    assert "Restarts=1" in shown


def test_asked_to_stop_before_any_rank_could_listen(cluster, script, tmp_path):
    slow = tmp_path / "slow python"
    slow.write_text(f"#!/bin/sh\ntouch '{tmp_path}/begun'\nexec sleep 3600\n")
    slow.chmod(0o755)
    run = start(script("pass"), tmp_path, python=str(slow), max_requeues=0)
    wait_for((tmp_path / "begun").exists)

    def has_ended():
        # Slurm loses what it is to send to a step that is still being started.
        subprocess.run(["scancel", "--signal=USR2", job_id(run)], capture_output=True, check=False)
        return run.has_ended()

    wait_for(has_ended)
    assert run.status().reason == "stopped to go on later, and not requeued: executor.max_requeues=0"


@pytest.mark.parametrize("heard", [True, False])
def test_the_controller_goes_while_it_is_asked_to_requeue(tmp_path, monkeypatch, heard):
    """The commands are stubs: `heard` says whether it has done so before it went."""
    squeue = 'case $* in *RestartCnt*) echo 0 ;; *) test -e heard && s=PENDING; echo "7|${s:-RUNNING}|None|N/A" ;; esac'
    scontrol = f"echo $* >>asked; test -e away || {{ touch away {'heard' if heard else ''}; exit 1; }}"
    for name, text in {"squeue": squeue, "scontrol": scontrol}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    run_dir = tmp_path / "run"
    (run_dir / "slurm").mkdir(parents=True)
    (run_dir / "checkpoints" / "step-00000001").mkdir(parents=True)
    (run_dir / "job.json").write_text('{"executor": {"max_requeues": null}, "world_size": 1}')
    write_state(run_dir, State(state="running", supervisor={"slurm_job_id": "7", "nodes": "node1"}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    note_end(run_dir, 0, EXIT_STOPPED)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert end.main([str(run_dir), "0"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert read_state(run_dir).state == "queued"
    assert (tmp_path / "asked").read_text().splitlines() == ["requeue 7"] * (1 if heard else 2)


def test_max_requeues(cluster, script, tmp_path):
    run = start(script(COUNTING.replace("SAVES_NOTHING", "False")), tmp_path, max_requeues=0)
    ask_to_stop(run, 0, 1)
    assert run.wait() == 1
    assert "executor.max_requeues=0" in run.status().reason
    assert list((run.path / "checkpoints").iterdir())
