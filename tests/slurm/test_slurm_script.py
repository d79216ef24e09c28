"""The batch script, which needs no cluster."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from executors.slurm.executor import SlurmExecutor
from executors.slurm.submission import batch_script
from neva_recipes.config import UserError
from tests.slurm.slurm_jobs import make_job

GOLDEN = Path(__file__).parent / "golden"

PLAIN = {}
EVERYTHING = {
    "partition": "gpu",
    "account": "vision",
    "qos": "high",
    "reservation": "maintenance",
    "time": "1-12:00:30",
    "gpu_request": "gpus-per-node",
    "gpu_model": "h100",
    "cpus_per_task": 8,
    "memory": "512G",
    "constraint": "nvlink&ib",
    "nodelist": "node[1-4]",
    "exclude": "node9",
    "exclusive": True,
    "dependency": "afterok:17",
    "mail_type": "END,FAIL",
    "mail_user": "me@example.org",
    "comment": "second try; $(date) #1",
    "signal_delay_s": 300,
    "max_requeues": 3,
    "modules": ["cuda/12.4", "it's mine"],
    "setup": ["ulimit -n 65536"],
    "sbatch": {"licenses": "data:1", "oversubscribe": ""},
    "srun": ["--mpi=none"],
    "env": {"NCCL_DEBUG": "INFO", "GREETING": 'it\'s "me"', "HF_TOKEN": "hf_" + "a" * 34},
}
CONTAINER = {
    "gpu_request": "none",
    "max_requeues": 0,
    "code_snapshot": False,
    "container_image": "/images/neva recipes.sqsh",
    "container_mounts": ["/data:/data:ro"],
    "python": "/usr/bin/python3",
}


def text_of(fields):
    job = make_job("/rank.py", "/scratch/runs", 2, 4, **fields)
    job = dataclasses.replace(job, run_dir=Path("/scratch/runs/tiny-1"), cwd=Path("/home/me"), name="tiny")
    return batch_script(job, job.executor).replace(sys.executable, "/venv/bin/python"), job


@pytest.mark.parametrize(("name", "fields"), [("plain", PLAIN), ("everything", EVERYTHING), ("container", CONTAINER)])
def test_golden(name, fields):
    text, job = text_of(fields)
    assert text == (GOLDEN / f"{name}.sh").read_text()
    assert "hf_aaa" not in text + job.script() + job.to_json()
    assert text.replace("/venv/bin/python", sys.executable) in job.script()


@pytest.mark.parametrize("name", ["plain", "everything", "container"])
def test_shellcheck(name):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", GOLDEN / f"{name}.sh"], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"partition": "a b"}, "executor.partition='a b': expected a word without spaces"),
        ({"partition": 3}, "executor.partition=3: expected"),
        ({"dependency": "tomorrow"}, "executor.dependency='tomorrow': expected conditions as sbatch has them, such as"),
        (
            {"dependency": "afterok:1,afterany:1?afterok:2"},
            "all joined by commas (all must be met) or all by ?",
        ),
        ({"time": "tomorrow"}, "executor.time='tomorrow': expected a time as Slurm writes it, such as 30"),
        ({"memory": "lots"}, "executor.memory='lots': expected an amount of memory"),
        ({"cpus_per_task": 0}, "executor.cpus_per_task=0: expected an integer >= 1"),
        ({"gpu_request": "all"}, "executor.gpu_request='all': expected one of gres, gpus-per-node, none"),
        ({"gpu_model": "h100:8"}, "executor.gpu_model='h100:8': expected"),
        ({"signal_delay_s": 0}, "executor.signal_delay_s=0: expected an integer >= 1"),
        ({"max_requeues": -1}, "executor.max_requeues=-1: expected"),
        ({"constraint": 'say "hi"'}, "executor.constraint="),
        ({"sbatch": {"output": "x"}}, "executor.sbatch.output: is set by the executor itself"),
        ({"sbatch": {"time": "3"}}, "executor.sbatch.time: is set by a field: executor.time"),
        ({"sbatch": {"mem": "3"}}, "executor.sbatch.mem: is set by a field: executor.memory"),
        (
            {"sbatch": {"cpus-per-task": "3"}},
            "executor.sbatch.cpus-per-task: is set by a field: executor.cpus_per_task",
        ),
        ({"sbatch": {"--licenses": "3"}}, "'--licenses'"),
        ({"sbatch": {"wait": ""}}, "executor.sbatch.wait: such a job could not be followed: leave it out"),
        ({"sbatch": {"clusters": "east"}}, "leave it out, and submit from a machine of that cluster"),
        ({"time": "1"}, "executor.signal_delay_s=90: a job of executor.time=1 would be told to stop as it starts"),
        ({"container_mounts": ["/a:/a"]}, "executor.container_mounts: goes with executor.container_image"),
        ({"setup": ["echo a\necho b"]}, "executor.setup="),
        ({"env": {"RANK": "1"}}, "executor.env: RANK is set by the executor itself"),
        ({"comment": "hf_" + "a" * 34}, "executor.comment: holds a Hugging Face token"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(UserError) as caught:
        SlurmExecutor(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
