"""Texts that Slurm keeps for a job reach it as they were given."""

import json
import subprocess

import pytest

from executors.slurm.executor import SlurmExecutor
from tests.slurm.slurm_jobs import make_job

COMMENTS = [
    '{"project": "vision", "note": "it\'s \\"second\\" try", "path": "C:\\\\data", "n": [1, 2]}',
    "it's",
    "back\\slash",
    "end\\",
    '"',
    "'",
    "\\\"'",
    "a  b  # c; $(touch canary) `touch canary` $HOME & | >x",
    "ünïcode 日本",
    "{}",
]


def comment_of(job):
    """Submit the batch script of a job, and return what Slurm has for its comment."""
    script = job.executor.script(job)
    text = script[script.index("#!/bin/bash") :].split("\nEND\n")[0]
    sent = subprocess.run(["sbatch", "--parsable", "--hold"], input=text, capture_output=True, text=True, check=True)
    shown = subprocess.run(
        ["squeue", "--noheader", "--format=%k", f"--jobs={sent.stdout.strip()}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.removesuffix("\n")


@pytest.mark.parametrize("text", COMMENTS)
def test_a_comment_is_what_slurm_shows(cluster, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    job = make_job("/rank.py", tmp_path / "runs", gpu_request="none", comment=text)
    assert comment_of(job) == text
    if text.startswith("{"):
        assert isinstance(json.loads(text), dict)
    assert not (tmp_path / "canary").exists()


def test_other_options_are_told_beside_it(cluster, tmp_path):
    """An option of `sbatch` that takes any text, and the quoted comment, leave the rest as it was."""
    fields = {"comment": '{"a": "it\'s"}', "sbatch": {"wckey": "it's"}}
    lines = SlurmExecutor(**fields).script(make_job("/rank.py", tmp_path, **fields)).splitlines()
    assert {'#SBATCH --comment="{\\"a\\": \\"it\'s\\"}"', '#SBATCH --wckey="it\'s"'} <= {*lines}
    assert [sum(line.startswith(f"#SBATCH --{name}") for line in lines) for name in ("comment", "wckey")] == [1, 1]
    assert [line for line in lines if line.startswith("#SBATCH --ntasks-per-node")]
