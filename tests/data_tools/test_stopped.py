"""A check that is stopped, or loses one of its processes, says so in one line and leaves nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest


@pytest.fixture
def running(planted, tmp_path):
    """A check that has started its processes, of a file that takes many times as long as that."""
    path, images, _ = planted
    text = path.read_text(encoding="utf-8").strip()[1:-1]
    large = tmp_path / "large.json"
    large.write_text("[" + ",".join([text] * 60) + "]", encoding="utf-8")
    command = [sys.executable, "-m", "neva_recipes", "data", "check", str(large), "--image-folder", str(images)]
    with subprocess.Popen(
        [*command, "--html", "a.html"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        yield process, tmp_path
        with contextlib.suppress(OSError):
            process.kill()
    large.unlink()  # some hundred MiB


def workers(process):
    """Return the processes that check, as soon as one has begun to."""
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        found = [one for one in watched.children() if "spawn_main" in " ".join(one.cmdline())]
        if found and max(one.cpu_times().user for one in found) > 0.6:
            return found
        time.sleep(0.02)
    raise AssertionError(process.communicate())


@pytest.mark.multiprocess
def test_an_interrupt(running):
    process, folder = running
    children = workers(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "note: stopped; nothing was written\n")
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children)
    assert [path.name for path in folder.iterdir()] == ["large.json"]


@pytest.mark.multiprocess
def test_a_process_that_is_killed(running):
    process, folder = running
    workers(process)[0].kill()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "error: a process that checks was killed, as for want of memory: check fewer files at a time\n"
    assert [path.name for path in folder.iterdir()] == ["large.json"]


@pytest.mark.multiprocess
def test_nobody_is_left_when_the_command_is_killed(running):
    process, _ = running
    children = workers(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
