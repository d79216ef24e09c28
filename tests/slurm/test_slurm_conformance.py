"""The contract of executors, on a real cluster."""

import dataclasses
import functools
import os
import subprocess
from pathlib import Path

import pytest

from executors.conformance import CHECKS, Subject
from executors.conformance.checks import secrets_are_nowhere
from executors.slurm.executor import SlurmExecutor
from tests.slurm.clusters import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


@pytest.fixture
def subject(cluster, tmp_path):
    def written():
        # The state of the controller holds the environment of each job, readable for its user alone.
        # Folders of jobs that have just ended go in between.
        places = (Path(folder, name) for folder, _, names in os.walk(cluster) for name in names)
        return [path for path in places if path.name != "environment"]

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

    return Subject(
        make=functools.partial(SlurmExecutor, gpu_request="none"),
        folder=tmp_path,
        patience=PATIENCE,
        refused_in_paths=("%j %A %t",),
        written=written,
        told=told,
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, subject):
    check(subject)


def test_a_secret_in_a_field_is_found(subject):
    def make(env):
        secret = env["EXECUTOR_CONFORMANCE_TOKEN"]
        return SlurmExecutor(gpu_request="none", env=env, comment=secret, srun=[f"--job-name={secret}"])

    with pytest.raises(AssertionError, match=r"^a secret is in ") as caught:
        secrets_are_nowhere(dataclasses.replace(subject, make=make))
    places = ("the arguments of a process: srun ", "/launch.sh", "/job.json", "/spool/", "scontrol show job", "squeue")
    for place in (*places, "scontrol write batch_script", "the output of show "):
        assert place in str(caught.value)


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    return done.stdout + done.stderr
