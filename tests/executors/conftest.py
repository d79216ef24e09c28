import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import executor_jobs
import place_jobs
import pytest

import executors
from tests.rank_scripts import script
from tests.waiting import wait_for

__all__ = ["script"]


class Processes:
    """Finds the processes that a test has started, however far they have strayed, by a mark in their environment."""

    def __init__(self, mark):
        self._needle = f"EXECUTOR_TEST_MARK={mark}".encode()

    def alive(self):
        """Return command lines by process number, zombies left out."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                # Both read empty of a process that has ended: of one that ends in between the environment does.
                command = (entry / "cmdline").read_bytes()
                if self._needle in (entry / "environ").read_bytes():
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def assert_only_supervision(self):
        """Once a run has ended, nothing of it is left but the supervisor and its guard on their way out."""
        left = [command for command in self.alive().values() if "executors.process.supervisor" not in command]
        assert not left, f"processes left behind: {left}"

    def wait_until_gone(self):
        deadline = time.monotonic() + executor_jobs.PATIENCE
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left, f"processes left behind: {left}"


@pytest.fixture(autouse=True)
def processes(monkeypatch):
    """Mark everything the test starts, and fail it if any of it is still there at the end."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("EXECUTOR_TEST_MARK", mark)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a plan goes by the GPUs of the machine
    for name in ("OMP_NUM_THREADS", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    found = Processes(mark)
    yield found
    try:
        found.wait_until_gone()
    finally:
        for pid in found.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a place for runs of which files say how they stand, as the accounting of a cluster would."""
    place_jobs.install(tmp_path / "modules")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    yield place_jobs.Place(tmp_path / "place")
    sys.modules.pop("place", None)


@pytest.fixture
def start(runs_dir):
    """Start a script as a detached run."""

    def start_script(path, world_size=1, **options):
        return executors.start_job(executor_jobs.make_job(path, runs_dir, world_size, **options), detach=True)

    return start_script


@pytest.fixture
def command(runs_dir, tmp_path):
    """Start the launching command as a process of its own, in a process group of its own as a shell would."""
    started = []

    def start_command(path, *arguments, **options):
        process = subprocess.Popen(
            [sys.executable, executor_jobs.__file__, str(path), str(runs_dir), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            cwd=tmp_path,
            **options,
        )
        started.append(process)
        return process

    yield start_command
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def only_run(runs_dir):
    """Wait for the one run of the test to be running, and return it."""

    def find():
        (run,) = wait_for(lambda: executors.list_runs(runs_dir))
        wait_for(lambda: run.status().state != "created")
        return run

    return find
