"""Many jobs are cancelled by one request, each by itself where Slurm refuses some."""

import json
import subprocess
from pathlib import Path

import pytest
import submitit  # noqa: F401 (its logger keeps the output that there is at its import, which is not to be a test's)

from executors import Run, run_pipeline
from executors.pipelines.directory import stage_statuses
from executors.runs.together import ask_together
from executors.slurm.cluster import cancel_jobs
from executors.slurm.executor import SlurmExecutor
from neva_recipes.cli.main import main
from neva_recipes.config import RunError
from neva_recipes.run_directory.state import State, read_state, write_state
from neva_recipes.sweep import sweep
from tests.slurm.slurm_jobs import points, start
from tests.waiting import wait_for

HELD = {"gpu_request": "none", "code_snapshot": False, "sbatch": {"hold": ""}}


@pytest.fixture
def requests(tmp_path, monkeypatch):
    """Return the arguments of each call of scancel."""
    real = subprocess.run(["which", "scancel"], capture_output=True, text=True, check=True).stdout.strip()
    folder, calls = tmp_path / "programs", tmp_path / "calls"
    folder.mkdir()
    (folder / "scancel").write_text(f'#!/bin/sh\necho "$*" >>{calls}\nexec {real} "$@"\n')
    (folder / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return lambda: calls.read_text().splitlines()


def make_sweep(runs_dir, count):
    return run_pipeline(sweep("s", points(count)), SlurmExecutor(**HELD), runs_dir, detach=True)


def array_of(run):
    return stage_statuses(run.path)[0].run.supervisor()["slurm_job_id"].partition("_")[0]


@pytest.mark.parametrize("ended", [(), (0, 3)])
def test_a_sweep_is_one_request(cluster, tmp_path, requests, capsys, ended):
    run = make_sweep(tmp_path / "runs", 5)
    array = array_of(run)
    if ended:
        subprocess.run(["/usr/bin/scancel", *(f"{array}_{index}" for index in ended)], check=True)
        wait_for(lambda: [stage.state for stage in stage_statuses(run.path)].count("cancelled") == len(ended))
    assert main(["cancel", run.name, "--runs-dir", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == f"{run.name} cancelled; nemo-run resume {run.path} goes on with it\n"
    left = [str(index) for index in reversed(range(5)) if index not in ended]
    assert requests() == [f"{array}_[{','.join(left)}]"]
    assert {stage.state for stage in stage_statuses(run.path)} == {"cancelled"}


def test_what_was_not_named_goes_on(cluster, tmp_path, requests, capsys):
    pipeline = make_sweep(tmp_path / "runs", 3)
    runs = [start("/rank.py", tmp_path / "runs", name=f"r{number}", **HELD) for number in range(3)]
    stages = [stage.run for stage in stage_statuses(pipeline.path)]
    names = [runs[0].name, f"{pipeline.name}/{stages[1].name}", runs[2].name, f"{pipeline.name}/{stages[2].name}"]
    assert main(["cancel", *names, "--runs-dir", str(tmp_path / "runs")]) == 0
    told = sorted(capsys.readouterr().out.splitlines())
    anew = "cancelled; it has saved no checkpoint yet, and nemo-run resume"
    expected = [f"{run.name} {anew} {run.path} begins anew" for run in (runs[0], runs[2])]
    points = [f"{pipeline.name}/{stage.name}" for stage in stages[1:]]
    expected += [f"{point} {anew} {pipeline.path.parent}/{point} begins anew" for point in points]
    assert told == sorted(expected)
    (call,) = requests()
    numbers = [run.supervisor()["slurm_job_id"] for run in (runs[0], runs[2])]
    assert call.split() == [numbers[0], f"{array_of(pipeline)}_[1,2]", numbers[1]]
    assert [run.status().state for run in (runs[1], stages[0])] == ["queued"] * 2


def test_by_force(cluster, tmp_path, script):
    """Ranks that hear of nothing are killed, whatever else is cancelled with them."""
    rank = script("signal.signal(signal.SIGTERM, signal.SIG_IGN); wait('never')")
    held = start("/rank.py", tmp_path / "runs", name="held", **HELD)
    runs = [start(rank, tmp_path / "runs", name=f"r{number}", gpu_request="none") for number in range(2)]
    wait_for(lambda: all(run.status().state == "running" for run in runs))
    names = [run.name for run in (held, *runs)]
    assert main(["cancel", "--force", *names, "--runs-dir", str(tmp_path / "runs")]) == 0
    assert [run.status().state for run in (held, *runs)] == ["cancelled"] * 3


def test_many_ends_are_one_question(tmp_path, monkeypatch):
    """However long it takes to write them down."""
    calls = tmp_path / "calls"
    rows = "".join(f"{number}|CANCELLED|None|N/A\\n" for number in range(1, 41))
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho x >>{calls}\nprintf '{rows}'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(SlurmExecutor, "answer_seconds", 0.0)  # as if the disk were that slow
    runs = [plant(tmp_path / "runs", number) for number in range(1, 41)]
    ask_together(runs)
    assert calls.read_text() == "x\n"
    assert {read_state(run.path).state for run in runs} == {"cancelled"}
    assert {run.status().state for run in runs} == {"cancelled"}
    assert calls.read_text() == "x\n"


def plant(folder, number):
    path = folder / f"r{number}"
    path.mkdir(parents=True)
    record = {"name": path.name, "created": "2026-01-01T00:00:00+00:00", "argv": [], "cwd": "/", "world_size": 1}
    (path / "job.json").write_text(json.dumps({**record, "executor": {"kind": "slurm"}}))
    write_state(path, State(state="running", supervisor={"slurm_job_id": str(number), "nodes": "n1"}))
    return Run(path)


def test_the_refusal_of_one_is_its_own(tmp_path, monkeypatch, capsys):
    """The words are Slurm's own, of a user whose job it is not."""
    state = tmp_path / "state"
    state.write_text("RUNNING")
    for name, text in {
        "squeue": f'read state <{state}; for job in 7 8 9; do echo "$job|$state|None|N/A"; done',
        "scancel": f"""case "$*" in *8*) why="Access/permission denied"
        echo "scancel: error: Kill job error on job id 8: $why" >&2; exit 210 ;; esac
        echo CANCELLED >{state}""",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for number in (7, 8, 9):
        plant(tmp_path / "runs", number)
    assert main(["cancel", "r7", "r8", "r9", "--runs-dir", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr()
    assert sorted(told.out.splitlines()) == ["r7 cancelled", "r9 cancelled"]
    assert told.err == "error: Slurm refuses: scancel: error: Kill job error on job id 8: Access/permission denied\n"


def test_a_controller_that_is_away_is_asked_once(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    why = "scancel: error: Unable to contact slurm controller (connect failure)"
    (tmp_path / "scancel").write_text(f"#!/bin/sh\necho x >>{calls}\necho '{why}' >&2\nexit 1\n")
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    runs = [(Path(f"/runs/{number}"), {"slurm_job_id": str(number)}) for number in range(3)]
    refused = SlurmExecutor.request_cancel_together(runs, force=True)
    assert refused.keys() == {path for path, _ in runs}
    assert {str(error) for error in refused.values()} == {f"Slurm refuses: {why}"}
    assert calls.read_text() == "x\n"
    with pytest.raises(RunError, match="connect failure"):
        cancel_jobs(["7"], force=False)
