"""What stands around a launch does not change its job: settings of the user's, and a job that the launch is made in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from executors.process.surroundings import RANK_VARIABLES
from executors.slurm.executor import SlurmExecutor
from neva_recipes.config import RunError
from tests.executors.surroundings import TOLD
from tests.slurm.slurm_jobs import make_job, start
from tests.waiting import wait_for

OF_USERS = {
    "SBATCH_ARRAY_INX": "0-2",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_JOB_NAME": "mine",
    "SBATCH_MEM_PER_CPU": "7",
    "SBATCH_PARTITION": "low",
    "SBATCH_TIMELIMIT": "3",
    "SBATCH_WAIT": "1",
}
OF_A_JOB = {
    "SLURM_ARRAY_JOB_ID": "3",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_JOB_ID": "5",
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_NTASKS_PER_GPU": "1",
}


def test_the_job_is_what_the_executor_says(cluster, script, tmp_path, monkeypatch):
    for name, value in (OF_USERS | OF_A_JOB).items():
        monkeypatch.setenv(name, value)
    body = "(run_dir / 'environment.json').write_text(json.dumps(dict(os.environ)))"
    run = start(script(body), tmp_path, partition="main", time="30", memory="300M", env={"A_TOKEN": "told by no file"})
    assert run.wait() == 0, run.status()
    found = json.loads((run.path / "environment.json").read_text())
    assert found["SLURM_JOB_PARTITION"] == "main"
    assert found["SLURM_JOB_NAME"] == run.name
    assert found["SLURM_MEM_PER_NODE"] == "300"
    assert found["A_TOKEN"] == "told by no file"
    assert not {"SLURM_MEM_PER_CPU", "SLURM_ARRAY_JOB_ID", "SLURM_NTASKS_PER_GPU"} & found.keys()


ASKING = {
    "SBATCH_CPUS_PER_GPU": "2",
    "SBATCH_GPUS": "1",
    "SBATCH_GPUS_PER_NODE": "2",
    "SBATCH_GPUS_PER_TASK": "1",
    "SBATCH_GRES": "gpu:3",
    "SBATCH_MEM_PER_GPU": "7",
    "SBATCH_OVERCOMMIT": "1",
    "SBATCH_SIGNAL": "USR1@5",
    "SBATCH_TIMELIMIT": "20",
    "SBATCH_OUTPUT": "/nowhere",
    "SBATCH_JOB_NAME": "mine",
    "SLURM_LABELIO": "1",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_GRES": "gpu:2",
    "SLURM_GPUS_PER_TASK": "1",
    "SLURM_MEM_PER_CPU": "7",
    "SLURM_HINT": "nomultithread",
    "SLURM_STEP_GRES": "gpu:2",
    "SLURM_THREADS_PER_CORE": "1",
    "SLURM_NTASKS_PER_NODE": "8",
    "SLURM_DISTRIBUTION": "plane=4",
    "SLURM_MPI_TYPE": "pmi2",
    "SRUN_CPUS_PER_TASK": "3",
    "SRUN_CONTAINER": "/nowhere",
}


@pytest.mark.parametrize(("fields", "gpus"), [({"gpu_request": "none"}, None), ({}, "gpu:2"), ({"time": "9"}, "gpu:2")])
def test_no_variable_asks_for_more_than_the_executor(cluster, script, tmp_path, monkeypatch, fields, gpus):
    """Slurm's own account of the job, and what its ranks have heard of launchers: of this job, and of nothing else."""
    for name, value in (TOLD | ASKING).items():
        monkeypatch.setenv(name, value)
    body = "(run_dir / f'environment-{rank}.json').write_text(json.dumps(dict(os.environ)))\nwait('go')"
    run = start(script(body), tmp_path, 1, 2, **fields)
    wait_for(lambda: len([*run.path.glob("environment-*.json")]) == 2)
    job = run.supervisor()["slurm_job_id"]
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    (run.path / "go").touch()
    assert run.wait() == 0, run.status()
    told = dict(word.partition("=")[::2] for word in shown.split())
    assert told.get("TresPerNode", "").removeprefix("gres:") == (gpus or "")
    assert not {"TresPerTask", "TresPerJob", "MemPerTres", "CpusPerTres", "TresPerSocket"} & told.keys(), shown
    assert told["NumCPUs"] == told["NumTasks"] == "2" and told["JobName"] == run.name
    assert told["TimeLimit"] == ("00:09:00" if fields.get("time") else "00:20:00")  # left open, it is the user's
    for rank in range(2):
        found = json.loads((run.path / f"environment-{rank}.json").read_text())
        heard = {name for name in TOLD.keys() - set(RANK_VARIABLES) if found.get(name) == TOLD[name]}
        assert heard <= {"SLURM_NNODES", "SLURM_RESTART_COUNT", "SLURM_STEP_ID"}, heard
        assert [name for name in found if found[name] == ASKING.get(name)] in ([], ["SBATCH_TIMELIMIT"])
        assert found["WORLD_SIZE"] == "2" and found["MASTER_ADDR"] != TOLD["MASTER_ADDR"]
    assert "[0] " not in (run.path / "logs" / "rank-0.log").read_text()


def test_inside_of_a_job_ranks_of_this_machine_hear_nothing_of_it(cluster, tmp_path):
    """A real srun starts the command."""
    rank = tmp_path / "rank.py"
    body = "import os, sys\nopen(f'{sys.argv[-1]}/seen-{os.environ[\"RANK\"]}', 'w').write('\\n'.join(os.environ))\n"
    rank.write_text(body)
    command = [sys.executable, "-m", "tests.executors.executor_jobs", rank, tmp_path / "runs", "--world-size=2"]
    srun = ["srun", "--ntasks=1", "--cpus-per-task=2", f"--chdir={Path.cwd()}"]
    done = subprocess.run([*srun, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    for number in (0, 1):
        seen = (run / f"seen-{number}").read_text().split("\n")
        assert {name for name in seen if name.startswith(("SLURM", "SRUN_", "PMI"))} == {"SLURM_CONF"}


def test_a_partition_of_the_users_is_the_one_that_is_looked_at(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "closed")
    with pytest.raises(RunError, match=r"executor.partition=closed: is closed"):
        start("/rank.py", tmp_path)


def test_a_refusal_is_said_once(cluster, tmp_path, capfd):
    with pytest.raises(RunError, match=r"^Slurm refuses the job: --ntasks-per-node is mutually exclusive with"):
        start("/rank.py", tmp_path, sbatch={"ntasks-per-gpu": "3"})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("missing", ["srun", "squeue"])
def test_slurm_in_part(tmp_path, monkeypatch, missing):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in {"sbatch", "sinfo", "srun", "squeue"} - {missing}:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    job = make_job("/rank.py", tmp_path)
    with pytest.raises(RunError, match=rf"^no Slurm here: {missing} is not on PATH$"):
        SlurmExecutor().require_ready(job)


def test_sbatch_without_a_word(tmp_path, monkeypatch):
    for name in ("sbatch", "sinfo", "srun", "squeue"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{'exit 1' if name == 'sbatch' else ''}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r"^Slurm refuses the job: sbatch has failed without a word$"):
        start("/rank.py", tmp_path / "runs")
