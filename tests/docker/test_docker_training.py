"""Training in a real container, by the real command, with names that need quoting everywhere."""

import contextlib

import pytest

from tests.docker.world import Place, owners
from tests.end_to_end.world import HOSTILE, PATIENCE, make_world, start_nemo_run
from tests.training._results import losses


@pytest.mark.multiprocess
@pytest.mark.slow
def test_same_loss_as_local(place, tmp_path):
    """Side by side. As user 1000, who can write nothing but the run directory, and whose every file belongs to him."""
    world = make_world(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in world.folder.rglob("*")}
    words = [*world.tiny(), "trainer.accelerator=cpu", "trainer.devices=2"]
    container = [f"executor.image={Place.IMAGE}", "executor.mount_code=true", "executor.user=1000:1000"]
    # As many threads as `start_nemo_run` gives the local run: they sum in their own order.
    container += ["executor.network=none", "executor.shm_size=1g", "executor.env.OMP_NUM_THREADS=1"]
    commands, folders = {}, {}
    with contextlib.ExitStack() as stack:
        for kind, settings in {"local": [], "docker": container}.items():
            folders[kind] = tmp_path / f"{kind} {HOSTILE}"
            place_of_run = ["--name", f"run {HOSTILE}", "--runs-dir", folders[kind], "--executor", kind]
            command = start_nemo_run("llava.finetune", *words, *place_of_run, *settings, cwd=world.folder)
            commands[kind] = stack.enter_context(command)
            stack.callback(command.kill)
        for command in commands.values():
            _, errors = command.communicate(timeout=2 * PATIENCE)
            assert command.returncode == 0, errors
    finished = {kind: next(folder.iterdir()) for kind, folder in folders.items()}
    assert losses(finished["docker"]) == pytest.approx(losses(finished["local"]), abs=1e-5)
    assert len(losses(finished["docker"])) == 3
    assert list(finished["docker"].glob("checkpoints/step-*"))
    assert owners(finished["docker"]) == {(1000, 1000)}
    assert before == {path: path.lstat().st_mtime_ns for path in world.folder.rglob("*")}
    assert not list(tmp_path.rglob("canary"))
