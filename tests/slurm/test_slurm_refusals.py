"""What a cluster can never give is refused in one line, before anything is written or submitted."""

import subprocess

import pytest

from executors.slurm.cluster import minutes_of
from neva_recipes.cli.main import main
from neva_recipes.config import UserError
from tests.end_to_end.world import contents, nemo_run
from tests.slurm.slurm_jobs import make_job, start


def job_ids():
    output = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True)
    return set(output.stdout.split())


@pytest.mark.parametrize(
    ("num_nodes", "devices", "fields", "message"),
    [
        (1, 1, {"partition": "mian"}, "executor.partition=mian: this cluster has no such partition (did you mean main"),
        (1, 1, {"partition": "closed"}, "executor.partition=closed: is closed; partition main would do"),
        (3, 1, {}, "trainer.num_nodes=3: partition main gives a job 2 such nodes at most; take trainer.num_nodes=2"),
        (
            1,
            6,
            {},
            "trainer.devices=6: a node of partition main has 4 GPUs, and 6 are asked for; take at most trainer.d",
        ),
        (1, 24, {"gpu_request": "none"}, "trainer.devices=24: a node of partition main has 16 cores, and 24"),
        (1, 1, {"gpu_model": "a100"}, "executor.gpu_model=a100: partition main has h100"),
        (1, 2, {"cpus_per_task": 9}, "executor.cpus_per_task=9: a node of partition main has 16 cores, and 18"),
        (1, 1, {"memory": "2T"}, "executor.memory=2T: a node of partition main has 1000000 MiB, and 2097152"),
        (1, 1, {"partition": "short", "time": "5"}, "executor.time=5: partition short allows 2 minutes"),
        (1, 1, {"nodelist": "node7"}, "Slurm refuses the job: "),
        (1, 1, {"constraint": "gold"}, "Slurm refuses the job: "),
        (1, 1, {"reservation": "mine"}, "Slurm refuses the job: "),
        (1, 1, {"dependency": "afterok:1"}, "executor.dependency=afterok:1: Slurm knows of no job 1"),
        (1, 1, {"dependency": "1,2"}, "executor.dependency=1,2: Slurm knows of no job 1"),
        (1, 1, {"sbatch": {"no-such-option": "1"}}, "Slurm refuses the job: "),
    ],
)
def test_refused(cluster, tmp_path, num_nodes, devices, fields, message):
    before = job_ids()
    with pytest.raises(UserError) as caught:
        start("/rank.py", tmp_path / "runs", num_nodes, devices, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert job_ids() <= before  # jobs of the test before this one may still be completing
    assert not [*(tmp_path / "runs").glob("*")]


def test_a_path_that_slurm_would_take_for_another(cluster, tmp_path):
    with pytest.raises(UserError, match="has a % before a letter with a meaning to Slurm"):
        start("/rank.py", tmp_path / "100%job")


def test_where_there_is_no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    job = make_job("/rank.py", tmp_path / "runs")
    assert "#SBATCH" in job.script()
    with pytest.raises(UserError, match=r"^no Slurm here: sbatch is not on PATH$"):
        start("/rank.py", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


COMMANDS = {
    "unknown partition": (
        ["executor.partition=gpus"],
        "executor.partition=gpus: this cluster has no such partition; exp",
    ),
    "too many GPUs": (
        ["trainer.devices=5"],
        "trainer.devices=5: a node of partition main has",
    ),
    "too many nodes": (["trainer.num_nodes=4"], "trainer.num_nodes=4: partition main gives a job 2 such nodes at most"),
    "unknown feature": (
        ["executor.constraint=gold"],
        "Slurm refuses the job: Batch job submission failed: Invalid feat",
    ),
    "unknown run": (["executor.dependency=afterok:1"], "executor.dependency=afterok:1: Slurm knows of no job 1"),
    "unwritable run directory": (
        ["--runs-dir", "/dev/null/runs"],
        "/dev/null/runs: cannot write a run directory: Not a",
    ),
    "path of Slurm's": (["--runs-dir", "%j"], "has a % before a letter with a meaning to Slurm: rename it"),
    "wrong field": (["executor.memory=lots"], "executor.memory='lots': expected an amount of memory"),
    "unknown field": (["executor.partion=main"], "executor.partion: no such field (did you mean executor.partition, "),
    "a field as an option": (["executor.sbatch.time=3"], "executor.sbatch.time: is set by a field: executor.time"),
    "a secret": (["executor.comment=hf_" + "a" * 34], "executor.comment: holds a Hugging Face token"),
    "a name with a slash": (["--name", "a/b"], "name='a/b': a run's name cannot hold '/'"),
    "no such data": (["data.data_path=no.json"], "data.data_path=no.json: no such file"),
    "no Slurm": (None, "no Slurm here: sbatch is not on PATH"),
}


@pytest.mark.parametrize("mistake", COMMANDS)
def test_the_command_refuses(cluster, world, monkeypatch, capfd, mistake):
    words, message = COMMANDS[mistake]
    before, files = job_ids(), contents(world.folder)
    sizes = {"data__global_batch_size": 40, "data__micro_batch_size": 1}
    with monkeypatch.context() as patch:
        patch.chdir(world.folder)
        if words is None:
            patch.setenv("PATH", str(world.folder))
        # That a batch is larger than the data is warned of before.
        assert main(["llava.finetune", *world.tiny(**sizes), "--quiet", "--executor", "slurm", *(words or ())]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert job_ids() <= before
    assert contents(world.folder) == files


@pytest.mark.slow
def test_the_command(cluster, world):
    words = [*world.tiny(), "--executor", "slurm"]
    refused = nemo_run("llava.finetune", *words, "executor.partition=gpus", cwd=world.folder, code=2)
    assert refused.stderr.count("\n") == 1
    assert "executor.partition=gpus: this cluster has no such partition; expected main, low" in refused.stderr
    shown = nemo_run("llava.finetune", *words, "executor.time=30", "--dry-run", cwd=world.folder)
    assert "#SBATCH --time=30" in shown.stdout


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("30", 30),
        ("1:30", 2),
        ("4:00:00", 240),
        ("2-0", 2880),
        ("1-12:30", 2190),
        ("1-00:00:01", 1441),
        ("infinite", None),
    ],
)
def test_times(time, minutes):
    assert minutes_of(time) == minutes
