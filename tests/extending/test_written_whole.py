"""Files and directories that are written whole or not at all, by one process at a time."""

import os
import signal
import subprocess
import sys

import pytest

from neva_recipes.config import CheckpointError
from neva_recipes.storage import whole
from neva_recipes.storage.whole import copy_file, written_whole
from tests.waiting import wait_for

SLOW = """
import sys, time
from pathlib import Path
from neva_recipes.storage.whole import written_whole
with written_whole(Path(sys.argv[1]), "directory") as folder:
    (folder / "half").write_text("half")
    Path(sys.argv[1] + ".begun").write_text("")
    sys.stdin.read()
    (folder / "rest").write_text("rest")
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def slow(tmp_path):
    """Another process that is writing `out`, until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, tmp_path / "out"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(lambda: (tmp_path / "out.begun").exists() or process.poll() is not None)
    (tmp_path / "out.begun").unlink()
    yield process
    process.kill()
    process.wait()


def test_of_two_at_once_one_is_whole_and_the_other_fails(slow, tmp_path):
    with written_whole(tmp_path / "out", "directory") as folder:
        (folder / "mine").write_text("mine")
    assert names(tmp_path / "out") == ["mine"]
    _, error = slow.communicate()
    assert slow.returncode == 1 and b"out: exists already; name a directory that does not" in error
    assert names(tmp_path / "out") == ["mine"] and names(tmp_path) == ["out"]


def test_what_a_killed_process_has_left_is_removed_by_the_next(slow, tmp_path):
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    (tmp_path / ".out.unfinished").write_text("of an older version")
    (tmp_path / ".out.unfinished-x").write_text("mine")
    assert names(tmp_path) == [".out.unfinished", f".out.unfinished-{slow.pid}", ".out.unfinished-x"]
    with written_whole(tmp_path / "out", "file") as path:
        path.write_text("whole")
    assert (tmp_path / "out").read_text() == "whole" and names(tmp_path) == [".out.unfinished-x", "out"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_an_error_leaves_nothing_and_no_empty_folders(kind, tmp_path):
    with (
        pytest.raises(CheckpointError, match="out: cannot be written: No space left on device"),
        written_whole(tmp_path / "a" / "b" / "out", kind) as path,
    ):
        (path / "x" if kind == "directory" else path).write_text("half")
        raise OSError(28, os.strerror(28))
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_nothing_is_written_through_a_link(kind, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for name in (".out.unfinished", f".out.unfinished-{os.getpid()}"):
        (tmp_path / name).symlink_to(kept)
    with (
        pytest.raises(CheckpointError, match="out: cannot be written: File exists"),
        written_whole(tmp_path / "out", kind),
    ):
        raise AssertionError("it has begun to write")
    assert kept.read_text() == "mine" and len(names(tmp_path)) == 3


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(CheckpointError, match="out: exists already"), written_whole(tmp_path / "out", "file") as path:
        path.write_text("new")
        (tmp_path / "out").write_text("mine")
    assert (tmp_path / "out").read_text() == "mine" and names(tmp_path) == ["out"]


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_cannot_be_read_is_none_of_the_target(named, tmp_path):
    """A folder cannot be opened; one's own memory cannot be read at its begin, and then the system names no file."""
    source = tmp_path / "source"
    source.mkdir() if named else source.symlink_to("/proc/self/mem")
    reason = "Is a directory" if named else "Input/output error"
    with pytest.raises(CheckpointError) as caught, written_whole(tmp_path / "out", "file") as path:
        copy_file(source, path)
    assert str(caught.value) == f"{source}: cannot be read: {reason}"
    with pytest.raises(CheckpointError) as caught, written_whole(tmp_path / "out", "directory") as path:
        (path / "a" / "b").write_text("into a folder that is not there")
    assert str(caught.value) == f"{tmp_path / 'out'}: cannot be written: No such file or directory"
    with pytest.raises(CheckpointError) as caught, written_whole(tmp_path / "out", "directory"):
        (tmp_path / "other").read_text()
    assert str(caught.value) == f"{tmp_path / 'other'}: cannot be read: No such file or directory"


def test_a_copy_is_the_file_whatever_a_write_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "_BLOCK", 7)
    (tmp_path / "source").write_bytes(bytes(range(256)))
    copy_file(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(range(256))
