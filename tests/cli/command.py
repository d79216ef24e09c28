"""The real `nemo-run`, run in an empty folder."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

NEMO_RUN = Path(sys.executable).with_name("nemo-run")


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch):
    """A plan goes by the GPUs of the machine, where there are any."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory whose name needs quoting everywhere."""
    path = tmp_path / 'it\'s a "Ünïcode" folder'
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def nemo_run(folder):
    """Return a function that runs `nemo-run` with arguments and returns the finished process."""

    def call(*arguments, env=None, check=None, **options):
        environment = {**os.environ, "PYTHONUTF8": "1", **(env or {})}
        done = subprocess.run(
            [NEMO_RUN, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120, **options
        )
        if check is not None:
            assert done.returncode == check, done.stderr
        return done

    return call


def in_terminal(command, **variables):
    """Run a command in a terminal of 80 columns and return what it shows."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("sh", ["sh", "-c", command], {**os.environ, "TERM": "xterm", "COLUMNS": "80", **variables})
    shown = b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(terminal)
    os.waitpid(process, 0)
    return shown.decode()
