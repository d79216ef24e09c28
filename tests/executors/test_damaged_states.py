"""A state.json that does not say what its run is known by: that run is lost, and no other one is harmed."""

import json
import os
from pathlib import Path

import pytest

import executors
from executors import _process
from executors._state import State, write_state
from neva_recipes.cli.main import main
from neva_recipes.config import RunError

PROCESS = _process.identify(os.getpid())
CONTAINER = {"container": "nemo-run-x", "docker_host": "unix:///nowhere", "hostname": PROCESS["hostname"]}
JOB = {"slurm_job_id": "7"}


def broken(entry):
    """Yield entries that lack a value, and such with one of another kind."""
    for name in entry:
        yield {key: value for key, value in entry.items() if key != name}
        for value in (None, [entry[name]], {}, "" if isinstance(entry[name], int) else 7, True):
            yield {**entry, name: value}


CASES = [
    *(("local", "running", entry) for entry in [{}, *broken(PROCESS)]),
    *(("local", "created", entry) for entry in broken(PROCESS)),
    *(("nemo_run", "running", entry) for entry in [{}, *broken(PROCESS)]),
    *(("docker", "running", entry) for entry in [{}, *broken(CONTAINER)]),
    *(("slurm", state, entry) for state in ("queued", "running") for entry in [{}, *broken(JOB)]),
    *(("slurm", "queued", {"slurm_job_id": text}) for text in ("", "x", "7,8", "7_", "7 ", "-7", "7_[1-2]")),
]


def plant(runs_dir, name, kind, state):
    """Write a run directory of an executor, whose job need not exist."""
    record = {"name": name, "created": "2025-01-01T00:00:00+00:00", "argv": [], "cwd": "/", "world_size": 1}
    path = runs_dir / name
    (path / "logs").mkdir(parents=True)
    (path / "job.json").write_text(json.dumps({**record, "executor": {"kind": kind}}))
    write_state(path, state)
    return path


def test_each_is_lost_and_tells_why(runs_dir):
    for number, (kind, state, supervisor) in enumerate(CASES):
        path = plant(runs_dir, f"r{number}", kind, State(state=state, attempt=3, supervisor=supervisor))
        run = executors.Run(path)
        status = run.status()
        assert (status.state, status.exit_code, status.attempt) == ("lost", 1, 3), (kind, state, supervisor)
        assert status.reason.startswith("state.json is damaged: supervisor."), (kind, state, supervisor)
        with pytest.raises(RunError, match=r"^run r\d+ has already ended: lost: state\.json is damaged: .* expected "):
            run.cancel()
        run.place()


def test_whole_ones_are_what_the_place_says(runs_dir, tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text("#!/bin/sh\necho '7|RUNNING|None|N/A'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind, entry in (("local", PROCESS), ("nemo_run", PROCESS), ("docker", CONTAINER), ("slurm", JOB)):
        path = plant(runs_dir, kind, kind, State(state="running", supervisor=entry))
        assert executors.Run(path).status().state == "running"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-10:00"])
def test_a_time_that_no_clock_can_show(runs_dir, moment):
    path = plant(runs_dir, "r", "local", State(state="succeeded", exit_code=0, started=moment))
    status = executors.Run(path).status()
    assert status.state == "lost" and status.reason.startswith("state.json cannot be read: ")


def test_the_other_runs_are_shown(runs_dir, tmp_path, monkeypatch, capsys):
    """Slurm is asked about many jobs at once, and refuses all where one is not the number of a job."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "squeue").write_text(
        f"""#!/bin/sh
        echo "$*" >>{tmp_path}/asked
        case "$*" in
            *--jobs=7,8*) printf '7|PENDING|Resources|N/A\\n8|RUNNING|None|N/A\\n' ;;
            *) echo 'squeue: error: Invalid job id: x' >&2; exit 1 ;;
        esac
        """
    )
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    plant(runs_dir, "a", "slurm", State(state="queued", supervisor={"slurm_job_id": "7"}))
    plant(runs_dir, "b", "slurm", State(state="running", supervisor={}))
    plant(runs_dir, "c", "slurm", State(state="running", supervisor={"slurm_job_id": "x"}))
    plant(runs_dir, "d", "slurm", State(state="running", supervisor={"slurm_job_id": "8", "nodes": "node1"}))
    (plant(runs_dir, "e", "slurm", State(state="running", supervisor=JOB)) / "job.json").write_text("{}")
    assert main(["status", "--runs-dir", str(runs_dir)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    states = {row[0]: row[1] for row in rows}
    assert states == {"a": "queued", "b": "lost", "c": "lost", "d": "running", "e": "unreadable"}
    assert len(Path(tmp_path / "asked").read_text().splitlines()) == 1
    assert main(["cancel", "c", "--runs-dir", str(runs_dir)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("lost: state.json is damaged: supervisor.slurm_job_id: expected the number of a Slurm job")
