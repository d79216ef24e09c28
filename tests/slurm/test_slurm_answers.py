"""What is made of the answers of Slurm's commands, those of other versions and of a cluster in trouble among them.

The commands are stubs whose words are Slurm's own; the answers of this machine's version are in the other tests.
"""

import os
import subprocess
import time

import pytest

from executors.slurm.cluster import cancel_jobs, job_standing, offered_nodes
from executors.slurm.executor import SlurmExecutor
from neva_recipes.config import RunError
from neva_recipes.run_directory.state import State, write_state
from tests.waiting import wait_for

JOB = {"slurm_job_id": "7", "nodes": "node1"}
DATABASE_DOWN = "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1"
NO_DATABASE = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
FORGOTTEN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
SILENT = "echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Put shell text in the place of Slurm's commands."""

    def put(**texts):
        for name, text in texts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="latin-1")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return tmp_path

    return put


@pytest.mark.parametrize("state", ["EXPEDITING", "POWER_UP_NODE", "STAGE_OUT"])
def test_a_state_of_a_later_version_is_no_end(commands, tmp_path, state):
    commands(squeue=f"echo '7|{state}|None|N/A'", sacct="echo '7|FAILED|1:0|Unknown'")
    assert SlurmExecutor.is_alive(JOB) is True
    assert job_standing("7").is_active


@pytest.mark.parametrize(
    ("squeue", "sacct", "alive", "told"),
    [
        (SILENT, "echo '7|COMPLETED|0:0|Unknown'", None, None),
        (FORGOTTEN, "echo '7|CANCELLED by 1000|0:15|Unknown'", False, "cancelled"),
        (FORGOTTEN, "printf '7|NODE_FAIL|1:0|Unknown\\n7|COMPLETED|0:0|Unknown\\n'", False, "succeeded"),
        (FORGOTTEN, "echo '7|RUNNING|0:0|Unknown'", False, None),
        (FORGOTTEN, "true", False, None),
        (FORGOTTEN, NO_DATABASE, False, None),
        (FORGOTTEN, None, False, None),
        (FORGOTTEN, DATABASE_DOWN, None, None),
        ("echo '7|FAILED|NonZeroExitCode|N/A'", DATABASE_DOWN, False, "failed"),
        ("echo '7|FAILED|NonZeroExitCode|N/A'", NO_DATABASE, False, "failed"),
        # The accounting has not heard of the second start.
        ("echo '7|CANCELLED|None|N/A'", "echo '7|NODE_FAIL|1:0|Unknown'", False, "cancelled"),
        ("printf 'CLUSTER: east\\n7|RUNNING|None|N/A\\n'", "true", True, "running"),
    ],
)
def test_who_does_not_answer_has_not_said_that_a_job_is_gone(commands, tmp_path, squeue, sacct, alive, told):
    commands(squeue=squeue, **({} if sacct is None else {"sacct": sacct}))
    assert SlurmExecutor.is_alive(JOB) is alive
    state = SlurmExecutor.outcome(tmp_path, JOB)
    assert (state and state.state) == told


def test_a_job_of_another_user_that_slurm_does_not_show_is_not_lost(commands, tmp_path, monkeypatch):
    """Clusters with PrivateData=jobs say nothing of it."""
    commands(squeue=FORGOTTEN, sacct="true")
    write_state(tmp_path, State(state="running", supervisor=JOB))
    assert SlurmExecutor.outcome(tmp_path, JOB) is None
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    told = SlurmExecutor.outcome(tmp_path, JOB)
    assert (told.state, told.reason) == ("running", "Slurm does not show you the jobs of the user whose run it is")


def test_an_end_is_when_it_was_and_not_when_somebody_looked(commands, tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        commands(squeue=FORGOTTEN, sacct="echo '7|TIMEOUT|0:0|2026-03-01T01:00:00'")
        assert SlurmExecutor.outcome(tmp_path, JOB).ended == "2026-02-28T16:00:00+00:00"
        commands(squeue="echo '7|CANCELLED|None|2026-03-01T02:00:00'", sacct=NO_DATABASE)
        assert SlurmExecutor.outcome(tmp_path, JOB).ended == "2026-02-28T17:00:00+00:00"
        commands(squeue="echo '7|CANCELLED|None|N/A'", sacct=NO_DATABASE)
        assert SlurmExecutor.outcome(tmp_path, JOB).ended is None
    finally:
        monkeypatch.undo()
        time.tzset()


def test_tasks_of_an_array_that_never_started(cluster):
    """Slurm keeps no record of these by themselves, whether one was cancelled or all that waited."""
    words = ["sbatch", "--parsable", "--hold", "--array=0-5", "--output=/dev/null", "--wrap", "sleep 600"]
    array = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def states():
        return [standing and standing.state for standing in (job_standing(f"{array}_{index}") for index in range(6))]

    assert states() == ["PENDING"] * 6
    subprocess.run(["scontrol", "release", f"{array}_1"], check=True)
    wait_for(lambda: states()[1] == "RUNNING")
    subprocess.run(["scancel", f"{array}_3"], check=True)
    wait_for(lambda: states() == ["PENDING", "RUNNING", "PENDING", "CANCELLED", "PENDING", "PENDING"])
    for index in (5, 4, 2, 1, 0):
        subprocess.run(["scancel", f"{array}_{index}"], check=True)
    wait_for(lambda: states() == ["CANCELLED"] * 6)


def test_numbers_are_not_shortened_and_no_partition_is_hidden(commands):
    commands(
        sinfo='case "$*" in *--all*--noconvert*) echo "big*|up|infinite|1-infinite|2048|1024|1048576|gpu:8" ;; '
        '*) echo "big*|up|infinite|1-infinite|2K|1K|1024K|gpu:8" ;; esac'
    )
    (nodes,) = offered_nodes()
    assert (nodes.number, nodes.cpus, nodes.memory) == (2048, 1024, 1048576)


def test_what_users_set_for_their_own_eyes_hides_no_job(commands, monkeypatch):
    for name in ("SQUEUE_USERS", "SINFO_PARTITION", "SACCT_FORMAT", "SCANCEL_INTERACTIVE"):
        monkeypatch.setenv(name, "true")
    show = 'test -z "$SQUEUE_USERS$SINFO_PARTITION$SACCT_FORMAT$SCANCEL_INTERACTIVE" || exit 1'
    commands(squeue=f"{show}; echo '7|RUNNING|None|N/A'", scancel=f"{show}; read answer && exit 1; exit 0")
    assert job_standing("7").state == "RUNNING"
    cancel_jobs(["7"], force=False)


def test_words_of_a_site_in_another_encoding(commands):
    commands(scancel="echo 'scancel: error: Zugriff für Sie verboten' >&2; exit 1")
    with pytest.raises(RunError, match=r"^Slurm refuses: scancel: error: Zugriff f.r Sie verboten$"):
        cancel_jobs(["7"], force=False)


@pytest.mark.parametrize(
    "words",
    [
        # Slurm 22.05 and 23.11 without slurm.conf and without a record in the DNS.
        "sinfo: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host",
        "sinfo: fatal: Could not establish a configuration source",
    ],
)
def test_a_machine_of_no_cluster_is_not_told_that_slurm_refuses(commands, words):
    commands(sinfo=f"echo '{words}' >&2; exit 1")
    with pytest.raises(RunError) as told:
        offered_nodes()
    assert str(told.value) == (
        f"no Slurm controller was found from here, as a login node of the cluster finds it: {words}"
    )
