"""A state.json that does not say what its run is known by: that run is lost, and no other one is harmed."""

import json
import os
import threading
from pathlib import Path

import pytest

import executors
from executors.runs.foreground import unsaved_steps
from neva_recipes.cli.main import main
from neva_recipes.config import RunError
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.standing import given_name, run_standing
from neva_recipes.run_directory.state import State, write_state

PROCESS = processes.identify(os.getpid())
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


def test_unsaved_steps_of_a_pipeline_whose_stages_are_asked_together(runs_dir, tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(
        f"#!/bin/sh\necho asked >>'{tmp_path}/asked'\nprintf '7|RUNNING|None|N/A\\n8|RUNNING|None|N/A\\n'\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    pipeline = plant(runs_dir, "pipe", "slurm", State(state="running", supervisor=JOB))
    started = "2025-01-01T00:00:00+00:00"
    for number, job in enumerate(("7", "8", "9")):
        state = State(state="running", started=started, supervisor={"slurm_job_id": job})
        stage = plant(pipeline / "stages", str(number), "slurm", state)
        (stage / "metrics").mkdir()
        (stage / "metrics" / "step.txt").write_text(f"{10 * (number + 1):<19}\n")
    (pipeline / "stages" / "1" / "checkpoints" / "step-00000015").mkdir(parents=True)
    (pipeline / "stages" / "1" / "checkpoints" / "step-00000015" / "checkpoint.json").write_text("{}")
    (pipeline / "stages" / "2" / "job.json").write_text("{")
    assert unsaved_steps(pipeline) == 10 + 20 - 15
    assert (tmp_path / "asked").read_text().split() == ["asked"]


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


@pytest.mark.parametrize("name", ["state.json", "job.json"])
def test_what_is_no_file_is_not_waited_for(runs_dir, name, capsys):
    path = plant(runs_dir, "r", "local", State(state="succeeded", exit_code=0))
    plant(runs_dir, "whole", "local", State(state="succeeded", exit_code=0))
    (path / name).unlink()
    os.mkfifo(path / name)
    assert main(["status", "--runs-dir", str(runs_dir)]) == 0
    out = capsys.readouterr().out
    assert "whole" in out and (name == "job.json" or " lost " in out)
    assert main(["gc", "--older-than", "0s", "--runs-dir", str(runs_dir)]) == 0


def test_what_is_far_too_large_is_not_read(runs_dir):
    path = plant(runs_dir, "r", "local", State(state="succeeded", exit_code=0))
    os.truncate(path / "state.json", 2**40)
    status = executors.Run(path).status()
    assert status.state == "lost" and "bytes are more than ours has" in status.reason


def test_a_path_that_is_no_run_is_named_as_it_was_typed(runs_dir, capsys):
    plant(runs_dir, "sweep", "local", State(state="succeeded", exit_code=0))
    (runs_dir / "folder").mkdir()
    for word, said in (
        (f"{runs_dir}/folder", f"no run '{runs_dir}/folder' in"),
        (f"{runs_dir}/none", f"no run '{runs_dir}/none' in"),
        ("swee/1", "no run 'swee' in"),
        ("sweep/1", "run sweep has no stage '1'"),
    ):
        assert main(["status", word, "--runs-dir", str(runs_dir)]) == 2
        assert said in capsys.readouterr().err


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
    (tmp_path / "asked").unlink()
    assert main(["status", "--format", "json", "--runs-dir", str(runs_dir)]) == 0
    assert {run["run"]: run["state"] for run in json.loads(capsys.readouterr().out)["runs"]} == states
    assert len(Path(tmp_path / "asked").read_text().splitlines()) == 1
    assert main(["cancel", "c", "--runs-dir", str(runs_dir)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("lost: state.json is damaged: supervisor.slurm_job_id: expected the number of a Slurm job")


def test_a_look_at_what_is_no_file_does_not_wait_for_it(tmp_path):
    """Planning a recipe that starts from a run reads that run's files."""
    for name in ("state.json", "job.json"):
        os.mkfifo(tmp_path / name)
    found = []
    look = threading.Thread(target=lambda: found.extend([run_standing(tmp_path), given_name(tmp_path)]), daemon=True)
    look.start()
    look.join(30)
    assert found == [None, None]
