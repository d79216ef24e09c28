"""The contract of executors, on a real cluster."""

import functools
import subprocess

import pytest

from executors.conformance import CHECKS, Subject
from executors.slurm import SlurmExecutor

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, cluster, tmp_path):
    def written():
        # The state of the controller holds the environment of each job, readable for its user alone.
        return [path for path in cluster.rglob("*") if path.is_file() and path.name != "environment"]

    def told(run):
        job = run.supervisor()["slurm_job_id"]
        commands = [
            ["scontrol", "show", "job", job],
            ["scontrol", "show", "step", job],
            ["scontrol", "write", "batch_script", job, "-"],
            ["squeue", "--format=%all"],
            ["squeue", "--json"],
            ["sacct", "--format=ALL", f"--jobs={job}"],
            ["sacct", "--env-vars", f"--jobs={job}"],
        ]
        return {" ".join(command): output_of(command) for command in commands}

    check(
        Subject(
            make=functools.partial(SlurmExecutor, gpu_request="none"),
            folder=tmp_path,
            patience=90,
            refused_in_paths=("%j %A %t",),
            written=written,
            told=told,
        )
    )


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    return done.stdout + done.stderr
