"""What network file systems answer now and then: what is harmless is borne, and what is not is told."""

import errno
import os
import pathlib
import stat
from collections import Counter

import pytest
from executor_jobs import make_job

import executors
from neva_recipes.config import RunError
from neva_recipes.run_directory.failure import read_failure
from neva_recipes.run_directory.state import State, sync_tree, write_atomically, write_state


def refuse_sync(monkeypatch, number, of_folders):
    """Have the synchronization of folders, or of files, fail."""
    fsync = os.fsync

    def refusing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)


def test_a_folder_that_cannot_be_synchronized(tmp_path, monkeypatch):
    refuse_sync(monkeypatch, errno.EINVAL, of_folders=True)
    write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
    sync_tree(tmp_path)


@pytest.mark.parametrize(
    ("number", "of_folders"), [(errno.EIO, True), (errno.ENOSPC, True), (errno.EINVAL, False), (errno.EIO, False)]
)
def test_a_disk_that_fails(tmp_path, monkeypatch, number, of_folders):
    (tmp_path / "another").write_text("")
    refuse_sync(monkeypatch, number, of_folders)
    for act in (lambda: write_atomically(tmp_path / "file", "text"), lambda: sync_tree(tmp_path)):
        with pytest.raises(OSError) as caught:
            act()
        assert caught.value.errno == number


@pytest.fixture
def run(runs_dir):
    """A run that has failed, with every file that readers look at."""
    job = make_job("/rank.py", runs_dir)
    path = runs_dir / "demo"
    path.mkdir(parents=True)
    (path / "job.json").write_text(job.to_json())
    for name, text in job.files.items():
        (path / name).write_text(text)
    (path / "failure.json").write_text('{"rank": 0, "kind": "crash", "message": "it broke"}')
    write_state(path, State(state="failed", exit_code=1, reason="it broke"))
    return executors.Run(path)


def test_a_file_that_has_been_replaced_while_it_was_read(run, monkeypatch):
    """The handle of the old one is stale then; the name leads to the new one."""
    opened, begun = os.open, Counter()

    def stale(path, *arguments, **options):
        name = pathlib.Path(path).name
        begun[name] += 1
        if name.endswith(".json") and begun[name] == 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", stale)
    assert run.record()["name"] == "tiny"
    assert run.saved_plan() is not None
    assert run.status().state == "failed"
    assert read_failure(run.path) == (0, "crash", "it broke")
    assert begun.keys() >= {"job.json", "plan.json", "state.json", "failure.json"}


def test_a_file_whose_server_has_forgotten_it(run, monkeypatch):
    def stale(path, *arguments, **options):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "open", stale)
    with pytest.raises(RunError, match=r"job\.json: cannot be read as the job of a run: .*Stale file handle"):
        run.record()
    assert run.status().reason == "state.json cannot be read: [Errno 116] Stale file handle"
