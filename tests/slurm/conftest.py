"""A real Slurm cluster of two nodes on this machine, shared by the tests."""

import contextlib
import os
import shutil
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from tests.end_to_end.world import World, make_world

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
    path = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if os.geteuid() != 0:
        missing.append("to be root")
    if missing:
        reason = f"a Slurm cluster needs {', '.join(missing)}"
        if os.environ.get("REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    for parent in folder.parents[:2]:
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


@pytest.fixture
def script(tmp_path):
    """Write a Python file for ranks to run; `wait(path)` is there for it."""
    preamble = """
    import json, os, signal, sys, time
    from pathlib import Path
    rank, run_dir = int(os.environ["RANK"]), Path(sys.argv[-1])
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    def wait(name):
        while not (run_dir / name).exists():
            time.sleep(0.01)
    """
    count = 0

    def write(body):
        nonlocal count
        count += 1
        path = tmp_path / f"rank_{count}.py"
        path.write_text(textwrap.dedent(preamble) + textwrap.dedent(body))
        return path

    return write


@contextlib.contextmanager
def nothing_starts():
    """Have jobs wait in the queue meanwhile, those that are put back there too."""
    subprocess.run(["scontrol", "update", "PartitionName=main", "State=DOWN"], check=True)
    try:
        yield
    finally:
        subprocess.run(["scontrol", "update", "PartitionName=main", "State=UP"], check=True)


def wait_for(condition, patience=PATIENCE):
    """Return the first true value of `condition()`."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience} s in vain"
        time.sleep(0.05)
    return value
