"""Training in a real container, by the real command, with names that need quoting everywhere."""

import pytest

from tests.docker.world import Place, owners
from tests.end_to_end.world import HOSTILE, make_world, nemo_run
from tests.training._results import losses


@pytest.mark.multiprocess
@pytest.mark.slow
def test_same_loss_as_local(place, tmp_path):
    """As user 1000, who can write nothing but the run directory, and whose every file belongs to him."""
    world = make_world(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in world.folder.rglob("*")}
    words = [*world.tiny(), "trainer.accelerator=cpu", "trainer.devices=2"]
    container = [f"executor.image={Place.IMAGE}", "executor.mount_code=true", "executor.user=1000:1000"]
    container += ["executor.network=none", "executor.shm_size=1g"]
    finished = {}
    for kind, settings in {"local": [], "docker": container}.items():
        runs = tmp_path / f"{kind} {HOSTILE}"
        place_of_run = ["--name", f"run {HOSTILE}", "--runs-dir", runs, "--executor", kind]
        nemo_run("llava.finetune", *words, *place_of_run, *settings, cwd=world.folder)
        (finished[kind],) = runs.iterdir()
    assert losses(finished["docker"]) == pytest.approx(losses(finished["local"]), abs=1e-5)
    assert len(losses(finished["docker"])) == 3
    assert list(finished["docker"].glob("checkpoints/step-*"))
    assert owners(finished["docker"]) == {(1000, 1000)}
    assert before == {path: path.lstat().st_mtime_ns for path in world.folder.rglob("*")}
    assert not list(tmp_path.rglob("canary"))
