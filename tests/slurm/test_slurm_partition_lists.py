"""A list of partitions is taken as Slurm itself takes it."""

import subprocess

import pytest

from executors.slurm.executor import SlurmExecutor
from neva_recipes.config import RunError
from tests.slurm.slurm_jobs import make_job


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ("main,", None),
        (",main", None),
        (",,main,,low,", None),
        ("main,mian", "executor.partition=mian: this cluster has no such partition (did you mean main"),
        (",", "executor.partition=,: names no partition; expected "),
    ],
)
def test_slurm_is_of_the_same_mind(cluster, tmp_path, partition, message):
    wanted = ["sbatch", "--test-only", f"--partition={partition}", "--output=/dev/null", "--wrap=true"]
    assert (subprocess.run(wanted, capture_output=True, check=False).returncode == 0) == (message is None)
    executor = SlurmExecutor(partition=partition, gpu_request="none")
    job = make_job("/rank.py", tmp_path / "runs", partition=partition, gpu_request="none")
    if message is None:
        executor.require_ready(job)
    else:
        with pytest.raises(RunError) as caught:
            executor.require_ready(job)
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
