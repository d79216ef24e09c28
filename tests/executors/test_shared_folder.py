"""A folder of runs that another node of the job cannot see is told of by a dry run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from executors.disk import sharing_finding
from neva_recipes import gpt
from neva_recipes.config import set_field
from neva_recipes.plan import plan


@pytest.fixture
def two_nodes():
    recipe = gpt.pretrain("tiny")
    for setting in ("trainer.num_nodes=2", "trainer.devices=1", "data.data_path=text.txt"):
        set_field(recipe, *setting.split("="))
    return plan(recipe)


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Let the system tell of these mounts."""

    def write(*lines):
        table = tmp_path / "mounts"
        table.write_text("".join(f"{line} rw,relatime 0 0\n" for line in lines))
        monkeypatch.setattr("executors.disk._MOUNTS", table)

    return write


@pytest.mark.parametrize(
    ("folder", "severity"),
    [
        ("/dev/shm/mine/runs", "warning"),
        ("/mnt/quick disk/runs", "warning"),
        ("/tmp/runs", "note"),
        ("/var/tmp/runs", "note"),
        ("/tmp/of all/runs", None),
        ("/home/me/runs", None),
        ("/tmpdir/runs", None),
        ("/lustre/runs", None),
    ],
)
def test_the_path_and_its_file_system_decide(two_nodes, mounts, folder, severity):
    mounts(
        "/dev/sda1 / ext4",
        "shm /dev/shm tmpfs",
        r"quick /mnt/quick\040disk tmpfs",
        r"server:/tmp /tmp/of\040all nfs4",
        "10.0.0.1@tcp:/fs /lustre lustre",
    )
    found = sharing_finding([two_nodes], Path(folder))
    assert (found and found.severity) == severity
    assert found is None or (found.code == "runs-dir-unshared" and found.line().startswith(f"{folder}: "))


def test_one_node_needs_no_other(mounts, tmp_path):
    mounts("shm / tmpfs")
    assert sharing_finding([plan(gpt.pretrain("tiny"))], tmp_path) is None


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this machine has no /dev/shm")
def test_a_dry_run_tells_of_recipes_and_pipelines(tmp_path):
    def dry_run(*words):
        command = [Path(sys.executable).with_name("nemo-run"), *words, "--dry-run", "--runs-dir", "/dev/shm/two-nodes"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)

    def codes(*words):
        return {each["code"]: each["line"] for each in json.loads(dry_run(*words).stdout)["plan"]["findings"]}

    words = ["--executor", "slurm", "trainer.num_nodes=2"]
    told = "/dev/shm/two-nodes: lies in the memory of one machine, where no other of the 2 nodes sees it; name "
    assert codes("llava.finetune", *words, "--format", "json")["runs-dir-unshared"].startswith(told)
    assert f"warning: {told}" in " ".join(dry_run("llava.pipeline", *words).stderr.split())
    # One machine has not two nodes, and says so.
    assert "runs-dir-unshared" not in codes("llava.finetune", "trainer.num_nodes=2", "--format", "json")
