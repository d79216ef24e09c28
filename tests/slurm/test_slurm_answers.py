"""What is made of the answers of Slurm's commands, those of other versions and of a cluster in trouble among them.

The commands are stubs whose words are Slurm's own; the answers of this machine's version are in the other tests.
"""

import pytest

from executors._slurm_cluster import cancel_job, job_standing, offered_nodes
from executors.slurm import SlurmExecutor
from neva_recipes.config import RunError

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
    commands(squeue=f"echo '{state}|None'", sacct="echo 'FAILED|1:0'")
    assert SlurmExecutor.is_alive(JOB) is True
    assert job_standing("7").is_active


@pytest.mark.parametrize(
    ("squeue", "sacct", "alive", "told"),
    [
        (SILENT, "echo 'COMPLETED|0:0'", None, None),
        (FORGOTTEN, "echo 'CANCELLED by 1000|0:15'", False, "cancelled"),
        (FORGOTTEN, "printf 'NODE_FAIL|1:0\\nCOMPLETED|0:0\\n'", False, "succeeded"),
        (FORGOTTEN, "echo 'RUNNING|0:0'", False, None),
        (FORGOTTEN, "true", False, None),
        (FORGOTTEN, NO_DATABASE, False, None),
        (FORGOTTEN, None, False, None),
        (FORGOTTEN, DATABASE_DOWN, None, None),
        ("echo 'FAILED|NonZeroExitCode'", DATABASE_DOWN, False, "failed"),
        ("echo 'FAILED|NonZeroExitCode'", NO_DATABASE, False, "failed"),
        ("printf 'CLUSTER: east\\nRUNNING|None\\n'", "true", True, "running"),
    ],
)
def test_who_does_not_answer_has_not_said_that_a_job_is_gone(commands, tmp_path, squeue, sacct, alive, told):
    commands(squeue=squeue, **({} if sacct is None else {"sacct": sacct}))
    assert SlurmExecutor.is_alive(JOB) is alive
    state = SlurmExecutor.outcome(tmp_path, JOB)
    assert (state and state.state) == told


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
    commands(squeue=f"{show}; echo 'RUNNING|None'", scancel=f"{show}; read answer && exit 1; exit 0")
    assert job_standing("7").state == "RUNNING"
    cancel_job("7", force=False)


def test_words_of_a_site_in_another_encoding(commands):
    commands(scancel="echo 'scancel: error: Zugriff für Sie verboten' >&2; exit 1")
    with pytest.raises(RunError, match=r"^Slurm refuses: scancel: error: Zugriff f.r Sie verboten$"):
        cancel_job("7", force=False)
