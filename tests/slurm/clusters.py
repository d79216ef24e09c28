"""A real Slurm cluster of two nodes on this machine, shared by the tests."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.end_to_end.world import World, make_world
from tests.required_programs import require_programs

SCRIPTS = Path(__file__).parent.parent / "testbed" / "slurm"
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch", "sacct")
NODES, GPUS = 2, 4
PATIENCE = 300.0
"""Seconds after which something has gone wrong, however slow the machine is."""


@contextlib.contextmanager
def running_cluster(folder, nodes, gpus, **settings):
    """Run a cluster of so many nodes with so many GPUs each, whose files lie in a folder.

    `settings` are those of start.sh, such as KILL_WAIT=60.
    """
    require_programs("a Slurm cluster", PROGRAMS, "REQUIRE_SLURM")
    for parent in folder.parents:
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(0o755)  # munged and slurmd want to own or share the way to their files
    try:
        command = [SCRIPTS / "start.sh", folder, "any", str(nodes), str(gpus)]
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        subprocess.run(command, check=True, timeout=PATIENCE, env=environment)
        yield folder
    finally:
        subprocess.run([SCRIPTS / "stop.sh", folder], check=False, timeout=PATIENCE)


@pytest.fixture(scope="session")
def cluster_folder(tmp_path_factory):
    """Start the cluster, and return its folder."""
    with running_cluster(tmp_path_factory.mktemp("slurm"), NODES, GPUS) as folder:
        yield folder


@pytest.fixture
def cluster(cluster_folder, monkeypatch):
    """The cluster, for this process and those it starts."""
    monkeypatch.setenv("SLURM_CONF", str(cluster_folder / "slurm.conf"))
    yield cluster_folder
    subprocess.run(["scancel", "--user", "root"], check=False)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Data, pictures and tokenizers whose every name needs quoting."""
    return make_world(tmp_path_factory.mktemp("world"))


@contextlib.contextmanager
def nothing_starts():
    """Have jobs wait in the queue meanwhile, those that are put back there too."""
    subprocess.run(["scontrol", "update", "PartitionName=main", "State=DOWN"], check=True)
    try:
        yield
    finally:
        subprocess.run(["scontrol", "update", "PartitionName=main", "State=UP"], check=True)
