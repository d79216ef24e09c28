"""Python files for ranks to run."""

import textwrap

import pytest

__all__ = ["script"]

_PREAMBLE = """
import json, os, signal, sys, time
from pathlib import Path
rank, run_dir = int(os.environ["RANK"]), Path(sys.argv[-1])
restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
def wait(name):
    while not (run_dir / name).exists():
        time.sleep(0.01)
"""


@pytest.fixture
def script(tmp_path):
    """Write a Python file for ranks to run; `wait(path)` is there for it."""
    count = 0

    def write(body):
        nonlocal count
        count += 1
        path = tmp_path / f"rank_{count}.py"
        path.write_text(_PREAMBLE + textwrap.dedent(body))
        return path

    return write
