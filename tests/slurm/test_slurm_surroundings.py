"""What stands around a launch does not change its job: settings of the user's, and a job that the launch is made in."""

import json

import pytest

from executors.slurm import SlurmExecutor
from neva_recipes.config import RunError
from tests.slurm.slurm_jobs import make_job, start

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
