"""Runs that an earlier version has written are read, resumed and used."""

import json
import sys
import tarfile
from pathlib import Path

import pytest

from tests.end_to_end.world import nemo_run

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

KEPT = Path(__file__).parent / "runs_of_old" / "november_2026.tar.gz"
"""Runs of the version of November 2026: one that has trained 8 steps, and a sweep that was cancelled at its start."""

PLACE, PYTHON = "/home/user/small", "/home/user/venv/bin/python"
"""Where they lay, and the Python that ran them."""

ALONE, POINTS = "alone-20261130-085508", "points-20261130-085517"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that they were started in, as if it had been moved here with its environment."""
    place = tmp_path_factory.mktemp("place")
    with tarfile.open(KEPT) as archive:
        archive.extractall(place, filter="data")
    for file in [*place.rglob("*.json"), *place.rglob("recipe.yaml"), *place.rglob("launch.sh")]:
        if "checkpoints" not in file.parts:  # whose digests tell of every change
            file.write_text(file.read_text().replace(PLACE, str(place)).replace(PYTHON, sys.executable))
    return place


def test_they_are_shown_as_they_were(place):
    listed = json.loads(nemo_run("status", "--format", "json", cwd=place).stdout)
    assert [(run["run"], run["state"]) for run in listed["runs"]] == [(ALONE, "succeeded"), (POINTS, "cancelled")]
    shown = nemo_run("show", ALONE, cwd=place).stdout
    assert "hidden_size" in shown and "step-00000008" in shown
    logs = nemo_run("logs", ALONE, cwd=place).stdout.splitlines()
    assert logs == (place / "runs" / ALONE / "logs" / "joined.log").read_text().splitlines()
    assert nemo_run("verify", ALONE, cwd=place).returncode == 0
    asked = nemo_run("chat", ALONE, "--prompt", "red", "--tokenizer", "tok.model", "--temperature", 0, cwd=place)
    assert asked.stdout.strip()


def test_they_go_on(place):
    nemo_run("resume", ALONE, "trainer.max_steps=12", cwd=place)

    status = json.loads(nemo_run("status", ALONE, "--format", "json", cwd=place).stdout)
    assert (status["state"], status["step"], status["attempt"]) == ("succeeded", 12, 2)


def test_a_sweep_goes_on(place):
    nemo_run("resume", POINTS, cwd=place)
    points = place / "runs" / POINTS / "stages"
    states = {point.name: json.loads((point / "state.json").read_text())["state"] for point in points.iterdir()}
    assert states == {"1": "succeeded", "2": "succeeded"}
